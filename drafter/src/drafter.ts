import type { MessageInitShape } from '@bufbuild/protobuf';
import type { RunFacts } from '@ptp/engine/engine-metrics';
import { recordRun } from '@ptp/engine/run-spans';
import { Scheduler } from '@ptp/engine/scheduler';
import { chunks, openWithin, Sequence } from '@ptp/engine/sequence';
import { timingsMessage } from '@ptp/engine/status-messages';
import {
  type BlockCheck,
  type BranchRequest,
  branchLength,
  checkedLength,
  type DraftEngine,
  type DraftOutput,
  type DraftSlot,
  type RunResult,
} from '@ptp/engine/types';
import { PtpError } from '@ptp/protocol/errors';
import type { Timings } from '@ptp/protocol/gen/ptp/v1/common_pb';
import type { DraftOpen, DraftRequest, DraftResponseSchema, DraftStep } from '@ptp/protocol/gen/ptp/v1/drafter_pb';
import { requireTokens } from '@ptp/protocol/validation';
import { planBranches } from './branch-plan.ts';

type Response = MessageInitShape<typeof DraftResponseSchema>;

/** Limits of the service, from its settings. */
export interface DrafterLimits {
  /** Tokens drafted in one step over all branches. */
  readonly budget: number;
  /** Longest block under verification. */
  readonly block: number;
  /** Tokens of a prompt that are read in one run. */
  readonly prefillChunk: number;
  /** Tokens in one run over all sequences, context and drafted together. */
  readonly batchTokens: number;
  /** Sequences open at once. */
  readonly sequences: number;
  /** Runs that may wait. */
  readonly queue: number;
}

/** The drafter's model behind a queue: what all Draft streams of a process share. */
export class Drafter {
  readonly engine: DraftEngine;
  readonly limits: DrafterLimits;
  readonly #scheduler: Scheduler<DraftSlot, DraftOutput>;

  /** @param observe hears of each run of the engine */
  constructor(engine: DraftEngine, limits: DrafterLimits, observe?: (run: RunFacts) => void) {
    this.engine = engine;
    this.limits = limits;
    const run = (slots: DraftSlot[]): Promise<RunResult<DraftOutput>> => engine.run(slots);
    const bounds = {
      slots: engine.info.maxSlots,
      tokens: limits.batchTokens,
      queue: limits.queue,
    };
    this.#scheduler = new Scheduler(run, (slot) => sizeOf(slot, engine.info.uniformsPerPosition), bounds, observe);
  }

  /** One Draft stream. */
  async *draft(requests: AsyncIterable<DraftRequest>, signal: AbortSignal): AsyncGenerator<Response> {
    const id = openWithin(this.engine, this.limits.sequences);
    try {
      let context: Context | undefined;
      for await (const { kind } of requests) {
        if (!context) {
          if (kind.case !== 'open') throw new PtpError('failed_precondition', 'the first message must be `open`');
          context = new Context(id, new Sequence(kind.value.start, this.engine.info));
          yield await this.#prefill(context, kind.value, signal);
        } else {
          if (kind.case !== 'step') throw new PtpError('failed_precondition', 'after `open` only `step` is allowed');
          yield await this.#step(context, kind.value, signal);
        }
      }
    } finally {
      this.engine.close(id);
    }
  }

  /** Reads the prompt in chunks, but not what an earlier sequence began with too; the last token is left for the first step, which needs a token to run. */
  async #prefill(context: Context, open: DraftOpen, signal: AbortSignal): Promise<Response> {
    let timings: Timings | undefined;
    const { sampling, tokens } = context.sequence;
    const prompt = tokens.slice(0, -1);
    const reusedTokens = await this.engine.reusePrefix(context.id, prompt);
    for (const chunk of chunks(prompt, this.limits.prefillChunk, reusedTokens)) {
      const slot = { sequence: context.id, ...chunk, sampling, branches: [] };
      const served = await this.#scheduler.submit(slot, signal, open.trace?.traceparent);
      recordRun('ptp.draft.prefill', open.trace?.traceparent, served, { 'ptp.tokens': chunk.tokens.length });
      timings = timingsMessage(served, chunk.tokens.length);
    }
    context.settle(tokens.length - 1);
    return { kind: { case: 'opened', value: { ...(timings && { timings }), reusedTokens } } };
  }

  async #step(context: Context, step: DraftStep, signal: AbortSignal): Promise<Response> {
    this.#check(context, step);
    const { sequence } = context;
    sequence.tokens.push(...step.committed);
    const { assumed } = step;
    const room = this.engine.info.contextLength - sequence.tokens.length - step.block.length;
    const maxLength = Math.min(step.plan?.maxBranchLength ?? 0, this.engine.maxBranchLength, room);
    const budget = Math.min(step.plan?.budget ?? 0, this.limits.budget);
    const asked = this.engine.checksBlocks
      ? { counts: [], branches: [], check: checkOf(sequence, step, Math.min(budget, maxLength)) }
      : this.#branches(sequence, step, budget, maxLength);
    const { counts, ...wanted } = asked;
    const written = context.extend(step.block, this.engine.checksBlocks ? step.block.length - assumed : 0);
    const slot = { sequence: context.id, ...written, sampling: sequence.sampling, ...wanted };
    const served = await this.#scheduler.submit(slot, signal, step.trace?.traceparent);
    const { branches } = served.output;
    recordRun('ptp.draft.run', step.trace?.traceparent, served, {
      'ptp.step': step.step,
      'ptp.block.length': step.block.length,
      'ptp.branches': branches.length,
      'ptp.drafted': sum(branches.map(({ tokens }) => tokens.length)),
    });
    return {
      kind: {
        case: 'result',
        value: {
          step: step.step,
          branches: branches.map(({ tokens, confidences, accepted }, i) => ({
            accepted: accepted === undefined ? (counts[i] as number) : assumed + accepted,
            tokens: Array.from(tokens),
            confidences: Array.from(confidences),
          })),
          timings: timingsMessage(served, sizeOf(slot, this.engine.info.uniformsPerPosition)),
        },
      },
    };
  }

  /** Branches for the likely outcomes of the block's verification, and the accepted counts that they are for. */
  #branches(sequence: Sequence, step: DraftStep, budget: number, maxLength: number) {
    const base = sequence.tokens.length;
    const { yieldCurve: whole, yieldCurveAfterMiss: afterMiss } = this.engine;
    const { assumed, block, blockConfidences } = step;
    const lengths = planBranches(blockConfidences.slice(assumed), { whole, afterMiss }, budget, maxLength);
    const counts = [...lengths.keys()].filter((m) => (lengths[m] as number) > 0).map((m) => assumed + m);
    const branches: BranchRequest[] = counts.map((m) => ({
      visible: base + m,
      u: sequence.uniformsAt(base + m, lengths[m - assumed] as number),
      // branch m < n is for the case that token m of the block is not what the target says there
      ...(m < block.length && { excluded: block[m] as number }),
    }));
    return { counts, branches };
  }

  #check(context: Context, step: DraftStep): void {
    const { info, maxBranchLength } = this.engine;
    const { committed, block, blockConfidences, assumed, plan } = step;
    const length = context.sequence.tokens.length + committed.length + block.length;
    limit('assumed', assumed <= block.length, `at most the ${block.length} tokens of \`block\``, assumed);
    const unsure = block.length - assumed;
    limit('block', unsure <= this.limits.block, `at most ${this.limits.block} tokens beside the assumed ones`, unsure);
    limit('block_confidences', blockConfidences.length === block.length, 'as many as `block`', blockConfidences.length);
    const bad = blockConfidences.find((c) => !(c >= 0 && c <= 1));
    limit('block_confidences', bad === undefined, 'in [0, 1]', bad ?? 0);
    limit('block', length < info.contextLength, `within ${info.contextLength} tokens of context`, length);
    limit('plan.budget', (plan?.budget ?? 0) >= 1, `in [1, ${this.limits.budget}]`, plan?.budget ?? 0);
    const longest = plan?.maxBranchLength ?? 0;
    limit('plan.max_branch_length', longest >= 1, `in [1, ${maxBranchLength}]`, longest);
    requireTokens('committed', committed, info.vocabulary);
    requireTokens('block', block, info.vocabulary);
  }
}

/** One sequence with what its cache holds: rows of the committed tokens and, beyond, of tokens that were once under verification. */
class Context {
  readonly id: number;
  readonly sequence: Sequence;
  /** The token of each cache row. */
  readonly #rows: number[] = [];
  /** Rows known to be those of committed tokens. */
  #settled = 0;

  constructor(id: number, sequence: Sequence) {
    this.id = id;
    this.sequence = sequence;
  }

  /** Notes that the first `count` tokens of the sequence are cached. */
  settle(count: number): void {
    this.#rows.push(...this.sequence.tokens.slice(this.#rows.length, count));
    this.#settled = count;
  }

  /**
   * What is to be written so that the cache holds the committed tokens and `block` after them: rows that were drafted and came
   * true are kept. At least one token is written, since a run needs one, and `before` it as many as are asked for.
   */
  extend(block: readonly number[], before: number): { at: number; tokens: number[] } {
    const wanted = [...this.sequence.tokens.slice(this.#settled), ...block];
    const most = wanted.length - 1 - before;
    let same = 0;
    while (same < most && this.#rows[this.#settled + same] === wanted[same]) same++;
    const at = this.#settled + same;
    const tokens = wanted.slice(same);
    this.#rows.splice(at, Number.POSITIVE_INFINITY, ...tokens);
    // the newest committed token stays unsettled, so that there always is one to write
    this.#settled = this.sequence.tokens.length - 1;
    return { at, tokens };
  }
}

/** Tokens that a slot takes of a run: context to be written and positions to be drafted. */
function sizeOf({ tokens, branches, check }: DraftSlot, dimensions: number): number {
  const drafted = check ? checkedLength(check, dimensions) : sum(branches.map((b) => branchLength(b, dimensions)));
  return tokens.length + drafted;
}

/** To be asked of a drafter that checks: one draft of `length` tokens after what is right of a step's block. */
function checkOf(sequence: Sequence, { block, assumed }: DraftStep, length: number): BlockCheck {
  const checked = block.length - assumed;
  return { block: checked, u: sequence.uniformsAt(sequence.tokens.length + assumed, checked + length) };
}

function sum(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0);
}

/** @throws PtpError `out_of_range` unless the value is within its limit */
function limit(field: string, within: boolean, allowed: string, value: number): void {
  if (!within) throw new PtpError('out_of_range', `\`${field}\` must be ${allowed}, got ${value}`, { field });
}

import type { MessageInitShape } from '@bufbuild/protobuf';
import { recordRun } from '@ptp/engine/run-spans';
import { type RunObserver, Scheduler, type ServiceLimits } from '@ptp/engine/scheduler';
import { chunks, openWithin } from '@ptp/engine/sequence';
import { timingsMessage } from '@ptp/engine/status-messages';
import type { DraftEngine, DraftOutput, DraftSlot, SequenceId } from '@ptp/engine/types';
import { PtpError } from '@ptp/protocol/errors';
import type { Timings } from '@ptp/protocol/gen/ptp/v1/common_pb';
import type { DraftOpen, DraftRequest, DraftResponseSchema, DraftStep } from '@ptp/protocol/gen/ptp/v1/drafter_pb';
import { fieldError, requireField, requireTokens } from '@ptp/protocol/validation';
import { planBranches } from './branch-plan.ts';
import { DraftSequence } from './draft-sequence.ts';

type Response = MessageInitShape<typeof DraftResponseSchema>;

export interface DrafterLimits extends ServiceLimits {
  /** Maximum number of drafted tokens in one step, over all branches. */
  readonly budget: number;
  /** Maximum length of a block, not counting its assumed tokens. */
  readonly block: number;
}

/** Part of a slot that requests drafts. */
type DraftQuery = Pick<DraftSlot, 'branches' | 'check'>;

/**
 * Drafts while the verifier works. Each step contains the block of tokens that is being verified. The drafter proposes
 * continuations of the text after the block, with the uniforms that the target will use to pick tokens. All Draft
 * streams of a process share one drafter.
 */
export class Drafter {
  readonly engine: DraftEngine;
  readonly #limits: DrafterLimits;
  readonly #scheduler: Scheduler<DraftSlot, DraftOutput>;

  constructor(engine: DraftEngine, limits: DrafterLimits, observe?: RunObserver) {
    this.engine = engine;
    this.#limits = limits;
    this.#scheduler = new Scheduler(engine, (slot) => this.#sizeOf(slot), limits, observe);
  }

  /** Serves one Draft stream, which is one sequence. */
  async *draft(requests: AsyncIterable<DraftRequest>, signal: AbortSignal): AsyncGenerator<Response> {
    const id = openWithin(this.engine, this.#limits.sequences);
    try {
      let sequence: DraftSequence | undefined;
      for await (const { kind } of requests) {
        if (!sequence) {
          if (kind.case !== 'open') throw new PtpError('failed_precondition', 'the first message must be `open`');
          sequence = new DraftSequence(kind.value.start, this.engine.info);
          yield await this.#prefill(id, sequence, kind.value, signal);
        } else {
          if (kind.case !== 'step')
            throw new PtpError('failed_precondition', 'after `open`, each message must be `step`');
          yield await this.#step(id, sequence, kind.value, signal);
        }
      }
    } finally {
      this.engine.close(id);
    }
  }

  /** Runs the prompt, except the part in the prefix cache and the last token, which runs with the first step. */
  async #prefill(id: SequenceId, sequence: DraftSequence, open: DraftOpen, signal: AbortSignal): Promise<Response> {
    const traceparent = open.trace?.traceparent;
    const prompt = sequence.tokens.slice(0, -1);
    const reusedTokens = await this.engine.reusePrefix(id, prompt);
    let timings: Timings | undefined;
    for (const chunk of chunks(prompt, this.#limits.prefillChunk, reusedTokens)) {
      const { sampling, uniforms } = sequence;
      const slot = { sequence: id, ...chunk, sampling, uniforms, branches: [] };
      const served = await this.#scheduler.submit(slot, signal, traceparent);
      recordRun('ptp.draft.prefill', traceparent, served, { 'ptp.tokens': chunk.tokens.length });
      timings = timingsMessage(served, chunk.tokens.length);
    }
    sequence.prefilled();
    return { kind: { case: 'opened', value: { ...(timings && { timings }), reusedTokens } } };
  }

  async #step(id: SequenceId, sequence: DraftSequence, step: DraftStep, signal: AbortSignal): Promise<Response> {
    this.#validate(sequence, step);
    sequence.tokens.push(...step.committed);
    const { checksBlocks } = this.engine;
    const unverified = step.block.length - step.assumed;
    const slot: DraftSlot = {
      sequence: id,
      ...sequence.extend(step.block, checksBlocks ? unverified + 1 : 1),
      sampling: sequence.sampling,
      uniforms: sequence.uniforms,
      ...(checksBlocks ? this.#check(sequence, step) : this.#branches(sequence, step)),
    };
    const traceparent = step.trace?.traceparent;
    const served = await this.#scheduler.submit(slot, signal, traceparent);
    const { branches } = served.output;
    recordRun('ptp.draft.run', traceparent, served, {
      'ptp.step': step.step,
      'ptp.block.length': step.block.length,
      'ptp.branches': branches.length,
      'ptp.drafted': sum(branches.map(({ tokens }) => tokens.length)),
    });
    const value = {
      step: step.step,
      branches: branches.map(({ tokens, confidences, accepted }, i) => ({
        accepted: accepted === undefined ? acceptedBefore(slot, i, sequence) : step.assumed + accepted,
        tokens: Array.from(tokens),
        confidences: Array.from(confidences),
      })),
      timings: timingsMessage(served, this.#sizeOf(slot)),
    };
    return { kind: { case: 'result', value } };
  }

  /** Requests a branch for each likely outcome: branch m continues the text if exactly m block tokens are accepted. */
  #branches(sequence: DraftSequence, step: DraftStep): DraftQuery {
    const { assumed, block, blockConfidences } = step;
    const { budget, maxLength } = this.#plan(sequence, step);
    const { yieldCurve: whole, yieldCurveAfterMiss: afterMiss } = this.engine;
    const lengths = planBranches(blockConfidences.slice(assumed), { whole, afterMiss }, budget, maxLength);
    const branches = lengths.flatMap((length, i) => {
      if (length === 0) return [];
      const m = assumed + i;
      const visible = sequence.tokens.length + m;
      // If exactly m < n tokens are accepted, the target rejected token m, so the branch must start with another token.
      const excluded = m < block.length ? { excluded: block[m] as number } : {};
      return [{ visible, length, ...excluded }];
    });
    return { branches };
  }

  /** Requests one branch, for the outcome that the engine predicts. */
  #check(sequence: DraftSequence, step: DraftStep): DraftQuery {
    const { budget, maxLength } = this.#plan(sequence, step);
    const block = step.block.length - step.assumed;
    return { branches: [], check: { block, length: Math.min(budget, maxLength) } };
  }

  /** Returns the step's plan, reduced to the limits of the service, the engine and the context. */
  #plan({ tokens }: DraftSequence, { plan, block }: DraftStep): { budget: number; maxLength: number } {
    const room = this.engine.info.contextLength - tokens.length - block.length;
    return {
      budget: Math.min(plan?.budget ?? 0, this.#limits.budget),
      maxLength: Math.min(plan?.maxBranchLength ?? 0, this.engine.maxBranchLength, room),
    };
  }

  /** Validates a step. @throws PtpError `invalid_argument` or `out_of_range`, naming field, limit and value */
  #validate({ tokens }: DraftSequence, { committed, block, blockConfidences, assumed, plan }: DraftStep): void {
    const { info, maxBranchLength } = this.engine;
    const { block: blockLimit, budget: budgetLimit } = this.#limits;
    const require = (valid: boolean, field: string, requirement: string, value: number) =>
      requireField(valid, field, requirement, value, 'out_of_range');

    require(assumed <= block.length, 'assumed', `at most the length of \`block\` (${block.length})`, assumed);
    const unverified = block.length - assumed;
    if (unverified > blockLimit) {
      const problem = `must have at most ${blockLimit} tokens after its first \`assumed\` tokens, got ${unverified}`;
      throw fieldError('block', problem, 'out_of_range');
    }
    const confidences = blockConfidences.length;
    require(confidences === block.length, 'block_confidences', `an array of ${block.length} numbers`, confidences);
    const invalid = blockConfidences.findIndex((c) => !(c >= 0 && c <= 1));
    require(invalid < 0, `block_confidences[${invalid}]`, 'in [0, 1]', blockConfidences[invalid] ?? 0);
    const length = tokens.length + committed.length + block.length;
    if (length >= info.contextLength) {
      const problem = `must end before the context limit of ${info.contextLength} tokens, got a text of ${length}`;
      throw fieldError('block', problem, 'out_of_range');
    }
    const { budget = 0, maxBranchLength: longest = 0 } = plan ?? {};
    require(budget >= 1, 'plan.budget', `in [1, ${budgetLimit}]`, budget);
    require(longest >= 1, 'plan.max_branch_length', `in [1, ${maxBranchLength}]`, longest);
    requireTokens('committed', committed, info.vocabulary);
    requireTokens('block', block, info.vocabulary);
  }

  /** Returns the number of tokens that a slot adds to a run: context to write plus positions to draft. */
  #sizeOf({ tokens, branches, check }: DraftSlot): number {
    return tokens.length + (check?.length ?? sum(branches.map(({ length }) => length)));
  }
}

/**
 * Returns the number of block tokens that branch i assumes to be accepted. This number is the number of visible tokens
 * minus the number of committed tokens.
 */
function acceptedBefore({ branches }: DraftSlot, i: number, { tokens }: DraftSequence): number {
  return (branches[i]?.visible ?? 0) - tokens.length;
}

function sum(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0);
}

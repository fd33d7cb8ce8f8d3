import type { MessageInitShape } from '@bufbuild/protobuf';
import type { RunFacts } from '@ptp/engine/engine-metrics';
import { recordRun } from '@ptp/engine/run-spans';
import { accept } from '@ptp/engine/sampling/accept';
import { Scheduler } from '@ptp/engine/scheduler';
import { chunks, openWithin } from '@ptp/engine/sequence';
import { timingsMessage } from '@ptp/engine/status-messages';
import type { RunResult, TargetEngine, TargetOutput, TargetSlot } from '@ptp/engine/types';
import { PtpError } from '@ptp/protocol/errors';
import type { Timings } from '@ptp/protocol/gen/ptp/v1/common_pb';
import type {
  VerifyOpen,
  VerifyRequest,
  VerifyResponseSchema,
  VerifyResult,
  VerifyStep,
} from '@ptp/protocol/gen/ptp/v1/verifier_pb';
import { requireTokens } from '@ptp/protocol/validation';
import { TargetSequence } from './target-sequence.ts';

type Response = MessageInitShape<typeof VerifyResponseSchema>;

/** Limits of the service, from its settings. */
export interface VerifierLimits {
  /** Longest draft in one step. */
  readonly draft: number;
  /** Tokens of a prompt that are read in one run. */
  readonly prefillChunk: number;
  /** Tokens in one run over all sequences. */
  readonly batchTokens: number;
  /** Sequences open at once. */
  readonly sequences: number;
  /** Runs that may wait. */
  readonly queue: number;
}

/** The target behind a queue: what all Verify streams of a process share. */
export class Verifier {
  readonly engine: TargetEngine;
  readonly limits: VerifierLimits;
  readonly #scheduler: Scheduler<TargetSlot, TargetOutput>;

  /** @param observe hears of each run of the engine */
  constructor(engine: TargetEngine, limits: VerifierLimits, observe?: (run: RunFacts) => void) {
    this.engine = engine;
    this.limits = limits;
    const run = (slots: TargetSlot[]): Promise<RunResult<TargetOutput>> => engine.run(slots);
    const bounds = {
      slots: engine.info.maxSlots,
      tokens: limits.batchTokens,
      queue: limits.queue,
    };
    this.#scheduler = new Scheduler(run, (slot) => slot.tokens.length, bounds, observe);
  }

  /**
   * One Verify stream. The cache holds every committed token but the last one, which heads the next run, so that the run's
   * picks are the target's own tokens at exactly the positions of the draft, and one more.
   */
  async *verify(requests: AsyncIterable<VerifyRequest>, signal: AbortSignal): AsyncGenerator<Response> {
    const id = openWithin(this.engine, this.limits.sequences);
    try {
      let sequence: TargetSequence | undefined;
      let last: Outcome | undefined;
      for await (const { kind } of requests) {
        if (!sequence) {
          if (kind.case !== 'open') throw new PtpError('failed_precondition', 'the first message must be `open`');
          sequence = new TargetSequence(kind.value, this.engine.info);
          yield await this.#prefill(id, sequence, kind.value, signal);
        } else {
          if (kind.case !== 'step') throw new PtpError('failed_precondition', 'after `open` only `step` is allowed');
          const result = isFor(kind.value, last)
            ? await this.#step(id, sequence, kind.value, signal)
            : { step: kind.value.step, skipped: true };
          last = 'accepted' in result ? result : undefined;
          yield { kind: { case: 'result', value: result } };
        }
      }
    } finally {
      this.engine.close(id);
    }
  }

  /**
   * Reads the prompt, all but its last token, in chunks that other sequences' steps run between; but not what an earlier sequence
   * began with too, unless the client wants to know of it.
   */
  async #prefill(id: number, sequence: TargetSequence, open: VerifyOpen, signal: AbortSignal): Promise<Response> {
    const prompt = sequence.tokens.slice(0, -1);
    const reusedTokens = open.tellPrompt ? 0 : await this.engine.reusePrefix(id, prompt);
    const promptLogProbabilities: number[] = [];
    const promptTop: ReturnType<TargetSequence['tops']> = [];
    let prefillUs = 0;
    let timings: Timings | undefined;
    for (const chunk of chunks(prompt, this.limits.prefillChunk, reusedTokens)) {
      const told = open.tellPrompt ? sequence.reading(chunk.at, chunk.tokens) : {};
      const served = await this.#scheduler.submit({ sequence: id, ...chunk, ...told }, signal, open.trace?.traceparent);
      promptLogProbabilities.push(...served.output.logProbabilities);
      promptTop.push(...sequence.tops(served.output, served.output.logProbabilities.length));
      recordRun('ptp.verify.prefill', open.trace?.traceparent, served, { 'ptp.tokens': chunk.tokens.length });
      prefillUs += served.runMicros;
      timings = timingsMessage(served, chunk.tokens.length);
    }
    const read = { prefillUs, cachedTokens: prompt.length, reusedTokens, promptLogProbabilities, promptTop };
    const value = { ...(timings && { timings }), ...read };
    return { kind: { case: 'opened', value } };
  }

  async #step(id: number, sequence: TargetSequence, step: VerifyStep, signal: AbortSignal) {
    const { info } = this.engine;
    const { draft, allowed } = step;
    if (draft.length > this.limits.draft) {
      const message = `\`draft\` must have at most ${this.limits.draft} tokens, got ${draft.length}`;
      throw new PtpError('out_of_range', message, { field: 'draft' });
    }
    const length = sequence.tokens.length;
    if (length + draft.length > info.contextLength) {
      const message = `\`draft\` must fit the context of ${info.contextLength} tokens: ${length} are committed, got ${draft.length}`;
      throw new PtpError('out_of_range', message, { field: 'draft' });
    }
    requireTokens('draft', draft, info.vocabulary);
    const slot = { sequence: id, ...sequence.slot(draft, allowed) };
    const served = await this.#scheduler.submit(slot, signal, step.trace?.traceparent);
    const { picks, logProbabilities } = served.output;
    const { accepted, tokens: committed } = accept(draft, picks);
    sequence.commit(committed);
    recordRun('ptp.verify.run', step.trace?.traceparent, served, {
      'ptp.step': step.step,
      'ptp.draft.length': draft.length,
      'ptp.accepted': accepted,
    });
    return {
      step: step.step,
      accepted,
      nextToken: committed[accepted] as number,
      logProbabilities: Array.from(logProbabilities.subarray(0, accepted + 1)),
      timings: timingsMessage(served, draft.length + 1),
      top: sequence.tops(served.output, accepted + 1),
    };
  }
}

/** What became of a step. */
type Outcome = Pick<VerifyResult, 'accepted' | 'nextToken'>;

/** Whether a step is to be run when the one before it, if it was run, ended so. */
function isFor({ after }: VerifyStep, last: Outcome | undefined): boolean {
  return !after || (after.accepted === last?.accepted && after.nextToken === last.nextToken);
}

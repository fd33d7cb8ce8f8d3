import type { MessageInitShape } from '@bufbuild/protobuf';
import { recordRun } from '@ptp/engine/run-spans';
import { accept } from '@ptp/engine/sampling/accept';
import { type RunObserver, Scheduler, type ServiceLimits } from '@ptp/engine/scheduler';
import { chunks, openWithin } from '@ptp/engine/sequence';
import { timingsMessage } from '@ptp/engine/status-messages';
import type { SequenceId, TargetEngine, TargetOutput, TargetSlot } from '@ptp/engine/types';
import { PtpError } from '@ptp/protocol/errors';
import type { Timings } from '@ptp/protocol/gen/ptp/v1/common_pb';
import type {
  VerifyOpen,
  VerifyRequest,
  VerifyResponseSchema,
  VerifyResult,
  VerifyStep,
} from '@ptp/protocol/gen/ptp/v1/verifier_pb';
import { fieldError, requireField, requireTokens } from '@ptp/protocol/validation';
import { TargetSequence } from './target-sequence.ts';

type Response = MessageInitShape<typeof VerifyResponseSchema>;

export interface VerifierLimits extends ServiceLimits {
  /** Maximum number of draft tokens in one step. */
  readonly draft: number;
}

/**
 * Runs the target over drafts and commits the tokens that the target would have picked (sampling/accept.ts). All Verify
 * streams of a process share one verifier.
 */
export class Verifier {
  readonly engine: TargetEngine;
  readonly #limits: VerifierLimits;
  readonly #scheduler: Scheduler<TargetSlot, TargetOutput>;

  constructor(engine: TargetEngine, limits: VerifierLimits, observe?: RunObserver) {
    this.engine = engine;
    this.#limits = limits;
    this.#scheduler = new Scheduler(engine, (slot) => slot.tokens.length, limits, observe);
  }

  /**
   * Serves one Verify stream, which is one sequence. The cache holds all committed tokens except the last. The next run
   * starts with the last token, so its picks are the target's own tokens for each position of the draft and for the
   * position after it.
   */
  async *verify(requests: AsyncIterable<VerifyRequest>, signal: AbortSignal): AsyncGenerator<Response> {
    const id = openWithin(this.engine, this.#limits.sequences);
    try {
      let sequence: TargetSequence | undefined;
      let outcome: Outcome | undefined;
      for await (const { kind } of requests) {
        if (!sequence) {
          if (kind.case !== 'open') throw new PtpError('failed_precondition', 'the first message must be `open`');
          sequence = new TargetSequence(kind.value, this.engine.info);
          yield await this.#prefill(id, sequence, kind.value, signal);
        } else {
          if (kind.case !== 'step')
            throw new PtpError('failed_precondition', 'after `open`, each message must be `step`');
          const result = follows(kind.value, outcome)
            ? await this.#step(id, sequence, kind.value, signal)
            : { step: kind.value.step, skipped: true };
          outcome = 'accepted' in result ? result : undefined;
          yield { kind: { case: 'result', value: result } };
        }
      }
    } finally {
      this.engine.close(id);
    }
  }

  /**
   * Runs the prompt except its last token, in chunks, so that other sequences can run in between. Skips the part in the
   * prefix cache, unless the client requests the log-probabilities of the prompt.
   */
  async #prefill(id: SequenceId, sequence: TargetSequence, open: VerifyOpen, signal: AbortSignal): Promise<Response> {
    const traceparent = open.trace?.traceparent;
    const prompt = sequence.tokens.slice(0, -1);
    const reusedTokens = open.tellPrompt ? 0 : await this.engine.reusePrefix(id, prompt);
    const promptLogProbabilities: number[] = [];
    const promptTop: ReturnType<TargetSequence['topTokens']> = [];
    let prefillUs = 0;
    let timings: Timings | undefined;
    for (const chunk of chunks(prompt, this.#limits.prefillChunk, reusedTokens)) {
      const scored = open.tellPrompt ? sequence.scored(chunk.at, chunk.tokens.length) : {};
      const served = await this.#scheduler.submit({ sequence: id, ...chunk, ...scored }, signal, traceparent);
      const { logProbabilities } = served.output;
      promptLogProbabilities.push(...logProbabilities);
      promptTop.push(...sequence.topTokens(served.output, logProbabilities.length));
      recordRun('ptp.verify.prefill', traceparent, served, { 'ptp.tokens': chunk.tokens.length });
      prefillUs += served.runMicros;
      timings = timingsMessage(served, chunk.tokens.length);
    }
    const read = { prefillUs, cachedTokens: prompt.length, reusedTokens, promptLogProbabilities, promptTop };
    return { kind: { case: 'opened', value: { ...(timings && { timings }), ...read } } };
  }

  /** Runs the target over the draft, and commits the accepted draft tokens and the target's own next token. */
  async #step(id: SequenceId, sequence: TargetSequence, step: VerifyStep, signal: AbortSignal) {
    const { draft, allowed } = step;
    this.#validate(sequence, step);
    const traceparent = step.trace?.traceparent;
    const served = await this.#scheduler.submit(
      { sequence: id, ...sequence.slot(draft, allowed) },
      signal,
      traceparent,
    );
    const { picks, logProbabilities, truncated = false } = served.output;
    const { accepted, tokens } = accept(draft, picks);
    sequence.commit(tokens);
    recordRun('ptp.verify.run', traceparent, served, {
      'ptp.step': step.step,
      'ptp.draft.length': draft.length,
      'ptp.accepted': accepted,
    });
    return {
      step: step.step,
      accepted,
      nextToken: tokens[accepted] as number,
      logProbabilities: Array.from(logProbabilities.subarray(0, accepted + 1)),
      timings: timingsMessage(served, draft.length + 1),
      top: sequence.topTokens(served.output, accepted + 1),
      truncated,
    };
  }

  #validate({ tokens }: TargetSequence, { draft, allowed, after }: VerifyStep): void {
    const { contextLength, vocabulary } = this.engine.info;
    const limit = this.#limits.draft;
    requireField(!after?.any || draft.length === 0, 'draft', 'empty with `after.any`', draft);
    requireField(!after?.any || allowed.length === 0, 'allowed', 'empty with `after.any`', allowed);
    const error = (problem: string) => fieldError('draft', `must ${problem}, got ${draft.length}`, 'out_of_range');
    if (draft.length > limit) throw error(`have at most ${limit} tokens`);
    if (tokens.length + draft.length > contextLength) {
      throw error(`fit the context of ${contextLength} tokens: ${tokens.length} are committed`);
    }
    requireTokens('draft', draft, vocabulary);
  }
}

type Outcome = Pick<VerifyResult, 'accepted' | 'nextToken'>;

/**
 * Returns false for a step that was sent ahead, if the previous step was skipped or does not have the expected outcome.
 */
function follows({ after }: VerifyStep, outcome: Outcome | undefined): boolean {
  if (!after) return true;
  if (!outcome) return false;
  return after.any || (after.accepted === outcome.accepted && after.nextToken === outcome.nextToken);
}

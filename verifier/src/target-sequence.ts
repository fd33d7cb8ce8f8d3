import type { EngineFacts, TargetOutput, TargetSlot } from '@ptp/core/engine/engine.ts';
import { PtpError } from '@ptp/core/errors.ts';
import type { VerifyOpen } from '@ptp/core/gen/ptp/v1/verifier_pb.ts';
import { Adjuster } from '@ptp/core/sampling/adjust.ts';
import { receivedAdjustments, Sequence } from '@ptp/core/sequence.ts';

/** Most alternatives that may be asked for; as many as OpenAI's API tells. */
export const MOST_TOPS = 20;

/** A sequence as the verifier sees it: how the target picks at each position along a draft, and what is told of it. */
export class TargetSequence extends Sequence {
  readonly #adjuster: Adjuster | undefined;
  readonly #topCount: number;

  /** @throws PtpError `invalid_argument` or `out_of_range`, naming field, limit and value */
  constructor(open: VerifyOpen, facts: EngineFacts) {
    super(open.start, facts);
    const { topLogProbabilities: topCount, adjustments } = open;
    const most = Math.min(MOST_TOPS, facts.vocabulary);
    if (topCount > most) {
      const message = `\`top_log_probabilities\` must be in [0, ${most}], got ${topCount}`;
      throw new PtpError('out_of_range', message, { field: 'top_log_probabilities' });
    }
    this.#topCount = topCount;
    const params = receivedAdjustments(adjustments, facts.vocabulary);
    const prompt = Math.max(0, this.tokens.length - (open.start?.firstPosition ?? 0));
    this.#adjuster = params && new Adjuster(params, this.tokens.slice(0, prompt), this.tokens.slice(prompt));
  }

  /** A run of the last committed token, whose row is not cached yet, and a draft after it. */
  slot(draft: readonly number[]): Omit<TargetSlot, 'sequence'> {
    const length = this.tokens.length;
    const tokens = [this.tokens[length - 1] as number, ...draft];
    return {
      at: length - 1,
      tokens,
      sampling: this.sampling,
      u: this.uniformsAt(length, tokens.length),
      ...(this.#adjuster && { adjust: this.#adjuster.along(draft) }),
      ...(this.#topCount > 0 && { topCount: this.#topCount }),
    };
  }

  commit(tokens: readonly number[]): void {
    this.tokens.push(...tokens);
    this.#adjuster?.push(tokens);
  }

  /** The alternatives of the first `count` picks, as they travel to the gateway; none if none were asked for. */
  tops({ topIds, topLogProbabilities }: TargetOutput, count: number) {
    if (!topIds || !topLogProbabilities) return [];
    return Array.from({ length: count }, (_, i) => {
      const [from, to] = [i * this.#topCount, (i + 1) * this.#topCount];
      return {
        ids: Array.from(topIds.subarray(from, to)),
        logProbabilities: Array.from(topLogProbabilities.subarray(from, to)),
      };
    });
  }
}

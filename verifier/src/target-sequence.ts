import { Adjuster, type Adjustment, allowOnly, allowToken } from '@ptp/engine/sampling/adjust';
import { Sequence } from '@ptp/engine/sequence';
import type { EngineInfo, TargetOutput, TargetSlot } from '@ptp/engine/types';
import type { VerifyOpen } from '@ptp/protocol/gen/ptp/v1/verifier_pb';
import { receivedAdjustments } from '@ptp/protocol/token-adjustments';
import { fieldError, requireField } from '@ptp/protocol/validation';

/** Maximum number of alternatives per token, as in OpenAI's API. */
const TOP_LIMIT = 20;

const GREEDY = { temperature: 0, topK: 0, topP: 1 };

/** Sequence of the verifier: adds sampling at each position of a draft, and the requested log-probabilities. */
export class TargetSequence extends Sequence {
  readonly #adjuster: Adjuster | undefined;
  readonly #topCount: number;
  readonly #roughScores: boolean;
  readonly #vocabulary: number;

  /** Validates the message. @throws PtpError `invalid_argument` or `out_of_range`, naming field, limit and value */
  constructor(open: VerifyOpen, info: EngineInfo) {
    super(open.start, info);
    const { topLogProbabilities: topCount, roughLogProbabilities, adjustments } = open;
    const limit = Math.min(TOP_LIMIT, info.vocabulary);
    requireField(topCount <= limit, 'top_log_probabilities', `in [0, ${limit}]`, topCount, 'out_of_range');
    this.#topCount = topCount;
    this.#roughScores = roughLogProbabilities && topCount === 0;
    this.#vocabulary = info.vocabulary;
    const params = receivedAdjustments(adjustments, info.vocabulary);
    const promptLength = Math.max(0, this.tokens.length - (open.start?.firstPosition ?? 0));
    this.#adjuster =
      params && new Adjuster(params, this.tokens.slice(0, promptLength), this.tokens.slice(promptLength));
  }

  /**
   * Returns the slot that runs the last committed token, which has no cache row yet, followed by a draft.
   *
   * @param allowed one mask for each position of the draft and for the next position. Empty if any token may be picked
   * @throws PtpError `invalid_argument` or `out_of_range` for invalid masks
   */
  slot(draft: readonly number[], allowed: readonly Uint8Array[]): Omit<TargetSlot, 'sequence'> {
    const length = this.tokens.length;
    const adjust = this.#adjustments(draft, allowed);
    const tokens = [this.tokens[length - 1] as number, ...draft];
    return {
      at: length - 1,
      tokens,
      sampling: this.sampling,
      uniforms: this.uniforms,
      ...(adjust && { adjust }),
      roughScores: this.#roughScores,
      ...this.#top(),
    };
  }

  /**
   * Scores tokens of the sequence: after each of the `count` tokens from index `at` on, the target may pick only the
   * token that follows in the sequence, so the outputs contain the log-probability of this token.
   */
  scored(at: number, count: number): Pick<TargetSlot, 'sampling' | 'uniforms' | 'adjust' | 'topCount'> {
    const following = this.tokens.slice(at + 1, at + 1 + count);
    return {
      sampling: GREEDY,
      uniforms: this.uniforms,
      adjust: following.map((token) => allowToken(token, this.#vocabulary)),
      ...this.#top(),
    };
  }

  commit(tokens: readonly number[]): void {
    this.tokens.push(...tokens);
    this.#adjuster?.push(tokens);
  }

  /**
   * Returns the alternatives to the first `count` picks as messages. The result is empty if the client requested none.
   */
  topTokens({ topIds, topLogProbabilities }: TargetOutput, count: number) {
    if (!topIds || !topLogProbabilities) return [];
    return Array.from({ length: count }, (_, i) => {
      const [start, end] = [i * this.#topCount, (i + 1) * this.#topCount];
      return {
        ids: Array.from(topIds.subarray(start, end)),
        logProbabilities: Array.from(topLogProbabilities.subarray(start, end)),
      };
    });
  }

  #top(): { topCount?: number } {
    return this.#topCount > 0 ? { topCount: this.#topCount } : {};
  }

  #adjustments(draft: readonly number[], allowed: readonly Uint8Array[]): Adjustment[] | undefined {
    const rows = this.#adjuster?.along(draft);
    if (allowed.length === 0) return rows;
    checkMasks(allowed, draft.length + 1, this.#vocabulary);
    return allowed.map((mask, i) => (rows ? { ...(rows[i] as Adjustment), allowed: mask } : allowOnly(mask)));
  }
}

function checkMasks(masks: readonly Uint8Array[], count: number, vocabulary: number): void {
  if (masks.length !== count) {
    const requirement = `be empty or have ${count} masks (one per token of \`draft\`, plus one)`;
    throw fieldError('allowed', `must ${requirement}, got ${masks.length}`, 'out_of_range');
  }
  const size = Math.ceil(vocabulary / 8);
  for (const [i, mask] of masks.entries()) {
    const field = `allowed[${i}]`;
    if (mask.length !== size) throw fieldError(field, `must have ${size} bytes, got ${mask.length}`, 'out_of_range');
    // Bits beyond the vocabulary are ignored.
    const last = (mask.at(-1) as number) & (0xff >> (8 * size - vocabulary));
    if (last !== 0 || mask.subarray(0, -1).some((bits) => bits !== 0)) continue;
    throw fieldError(field, 'must allow at least one token');
  }
}

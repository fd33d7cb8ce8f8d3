import { Adjuster, type Adjustment, only, onlyAllowed } from '@ptp/engine/sampling/adjust';
import { Sequence } from '@ptp/engine/sequence';
import type { EngineInfo, TargetOutput, TargetSlot } from '@ptp/engine/types';
import { PtpError } from '@ptp/protocol/errors';
import type { VerifyOpen } from '@ptp/protocol/gen/ptp/v1/verifier_pb';
import { receivedAdjustments } from '@ptp/protocol/token-adjustments';

/** Most alternatives that may be asked for; as many as OpenAI's API tells. */
export const MOST_TOPS = 20;

const GREEDY = { temperature: 0, topK: 0, topP: 1 };

/** A sequence as the verifier sees it: how the target picks at each position along a draft, and what is told of it. */
export class TargetSequence extends Sequence {
  readonly #adjuster: Adjuster | undefined;
  readonly #topCount: number;
  readonly #vocabulary: number;

  /** @throws PtpError `invalid_argument` or `out_of_range`, naming field, limit and value */
  constructor(open: VerifyOpen, info: EngineInfo) {
    super(open.start, info);
    const { topLogProbabilities: topCount, adjustments } = open;
    const most = Math.min(MOST_TOPS, info.vocabulary);
    if (topCount > most) {
      const message = `\`top_log_probabilities\` must be in [0, ${most}], got ${topCount}`;
      throw new PtpError('out_of_range', message, { field: 'top_log_probabilities' });
    }
    this.#topCount = topCount;
    this.#vocabulary = info.vocabulary;
    const params = receivedAdjustments(adjustments, info.vocabulary);
    const prompt = Math.max(0, this.tokens.length - (open.start?.firstPosition ?? 0));
    this.#adjuster = params && new Adjuster(params, this.tokens.slice(0, prompt), this.tokens.slice(prompt));
  }

  /**
   * A run of the last committed token, whose row is not cached yet, and a draft after it.
   *
   * @param allowed which tokens may be chosen at each of the draft's places and after it; empty where all may
   * @throws PtpError `invalid_argument` or `out_of_range` for masks that cannot be followed
   */
  slot(draft: readonly number[], allowed: readonly Uint8Array[]): Omit<TargetSlot, 'sequence'> {
    const length = this.tokens.length;
    const adjust = this.#adjustments(draft, allowed);
    const tokens = [this.tokens[length - 1] as number, ...draft];
    return {
      at: length - 1,
      tokens,
      sampling: this.sampling,
      u: this.uniformsAt(length, tokens.length),
      ...(adjust && { adjust }),
      ...(this.#topCount > 0 && { topCount: this.#topCount }),
    };
  }

  /**
   * Reading `tokens`, which the sequence has from index `at` on, with the target made to pick what comes next anyway: its
   * log-probabilities are then those of the given tokens.
   */
  reading(at: number, tokens: readonly number[]): Omit<TargetSlot, 'sequence' | 'at' | 'tokens'> {
    const next = this.tokens.slice(at + 1, at + 1 + tokens.length);
    return {
      sampling: GREEDY,
      u: this.uniformsAt(this.tokens.length, tokens.length),
      adjust: next.map((token) => only(token, this.#vocabulary)),
      ...(this.#topCount > 0 && { topCount: this.#topCount }),
    };
  }

  #adjustments(draft: readonly number[], allowed: readonly Uint8Array[]): Adjustment[] | undefined {
    const rows = this.#adjuster?.along(draft);
    if (allowed.length === 0) return rows;
    checkMasks(allowed, draft.length + 1, this.#vocabulary);
    return allowed.map((mask, i) => (rows ? { ...(rows[i] as Adjustment), allowed: mask } : onlyAllowed(mask)));
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

function checkMasks(masks: readonly Uint8Array[], count: number, vocabulary: number): void {
  if (masks.length !== count) {
    const message = `\`allowed\` must have ${count} masks, one more than \`draft\` has tokens, or none, got ${masks.length}`;
    throw new PtpError('out_of_range', message, { field: 'allowed' });
  }
  const size = Math.ceil(vocabulary / 8);
  for (const [i, mask] of masks.entries()) {
    const field = `allowed[${i}]`;
    if (mask.length !== size) {
      throw new PtpError('out_of_range', `\`${field}\` must have ${size} bytes, got ${mask.length}`, { field });
    }
    // bits beyond the vocabulary say nothing
    const last = (mask.at(-1) as number) & (0xff >> (8 * size - vocabulary));
    if (last !== 0 || mask.subarray(0, -1).some((bits) => bits !== 0)) continue;
    throw new PtpError('invalid_argument', `\`${field}\` must allow a token, got none`, { field });
  }
}

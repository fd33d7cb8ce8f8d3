import { PtpError } from '@ptp/protocol/errors';

/** Outcome of verifying a draft. */
export interface Acceptance {
  /**
   * m in [0, n], the number of accepted draft tokens. The paper's tables count m + 1 tokens, including the target's own
   * token.
   */
  readonly accepted: number;
  /** [m + 1] tokens to commit: the accepted draft tokens, then the target's own token. */
  readonly tokens: readonly number[];
}

/**
 * The verification rule. The target ran once over the draft d and picked its own token v_k at every position, from its
 * own distribution and with the same uniforms u_k that the drafter used. Accept the longest prefix with d_k = v_k; then
 * commit the target's own token v at the first difference, or after the last draft token.
 *
 * Every committed token is therefore the target's token: v_k is conditioned on d_<k, and in the accepted prefix d_<k =
 * v_<k. For any draft, the text is therefore the same, token for token, as the text that the target alone samples with
 * the same u (PTP paper, arXiv 2512.21323, error correction; docs/ptp.md, "Verification").
 *
 * @param draft [n] draft tokens, n >= 0
 * @param picks [n + 1] picks of the target: `picks[k]` follows the context and `draft[0..k)`
 * @throws PtpError `internal` if there are not n + 1 picks
 */
export function accept(draft: ArrayLike<number>, picks: ArrayLike<number>): Acceptance {
  if (picks.length !== draft.length + 1) {
    throw new PtpError(
      'internal',
      `the number of picks must be ${draft.length + 1} for ${draft.length} draft tokens, got ${picks.length}`,
    );
  }
  let accepted = 0;
  while (accepted < draft.length && draft[accepted] === picks[accepted]) accepted++;
  return { accepted, tokens: Array.from(picks).slice(0, accepted + 1) };
}

import { PtpError } from '@ptp/protocol/errors';

/** What one verified draft adds to the sequence. */
export interface Acceptance {
  /** m in [0, n]: draft tokens kept. The "accepted tokens" of the paper's tables are m + 1, the target's own included. */
  readonly accepted: number;
  /** [m + 1] tokens to commit: the kept draft tokens, then the target's own. */
  readonly tokens: readonly number[];
}

/**
 * The verification rule. The target ran once on the draft d and picked its own token v_k at every position, from its
 * own distribution and the same u_k that the drafter was given. Keep the longest prefix where the draft said what the
 * target says, d_k = v_k; at the first difference, or after the last draft token, commit the target's own v.
 *
 * Every committed token is thus the target's: v_k is conditioned on d_<k, and for the kept prefix d_<k = v_<k. The text is
 * token for token what the target alone would have sampled with those u, whatever was drafted (PTP paper,
 * arXiv 2512.21323, error correction; docs/ptp.md, "Decoding with error correction").
 *
 * @param draft [n] proposed tokens, n >= 0
 * @param picks [n + 1] the target's picks: `picks[k]` follows the context and `draft[0..k)`
 * @throws PtpError `internal` if there are not n + 1 picks
 */
export function accept(draft: ArrayLike<number>, picks: ArrayLike<number>): Acceptance {
  if (picks.length !== draft.length + 1) {
    throw new PtpError('internal', `${draft.length} draft tokens need one pick more, got ${picks.length}`);
  }
  let accepted = 0;
  while (accepted < draft.length && draft[accepted] === picks[accepted]) accepted++;
  return { accepted, tokens: Array.from(picks).slice(0, accepted + 1) };
}

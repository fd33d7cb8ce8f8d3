import { PtpError } from '@ptp/protocol/errors';

/** Outcome of verifying a draft. */
export interface Acceptance {
  /** m in [0, n]: draft tokens kept. The paper's tables count m + 1 accepted tokens, including the target's own. */
  readonly accepted: number;
  /** [m + 1] tokens to commit: the kept draft tokens, then the target's own. */
  readonly tokens: readonly number[];
}

/**
 * The verification rule. The target ran once over the draft d and picked its own token v_k at every position, from its
 * own distribution and with the same u_k that the drafter was given. Keep the longest prefix on which both agree, d_k =
 * v_k; at the first difference, or after the last draft token, commit the target's own v.
 *
 * Every committed token is therefore the target's: v_k is conditioned on d_<k, and in the kept prefix d_<k = v_<k. The
 * text is token for token the one that the target alone samples with these u, whatever was drafted (PTP paper, arXiv
 * 2512.21323, error correction; docs/ptp.md, "Verification").
 *
 * @param draft [n] proposed tokens, n >= 0
 * @param picks [n + 1] the target's picks: `picks[k]` follows the context and `draft[0..k)`
 * @throws PtpError `internal` if there are not n + 1 picks
 */
export function accept(draft: ArrayLike<number>, picks: ArrayLike<number>): Acceptance {
  if (picks.length !== draft.length + 1) {
    throw new PtpError('internal', `${draft.length} draft tokens need ${draft.length + 1} picks, got ${picks.length}`);
  }
  let accepted = 0;
  while (accepted < draft.length && draft[accepted] === picks[accepted]) accepted++;
  return { accepted, tokens: Array.from(picks).slice(0, accepted + 1) };
}

import { Sequence } from '@ptp/engine/sequence';

/** A sequence as the drafter sees it: the committed tokens, and the token of each row in the engine's cache. */
export class DraftSequence extends Sequence {
  /** Rows beyond the committed ones hold tokens that were once under verification. */
  readonly #rows: number[] = [];
  /** Rows known to hold committed tokens. */
  #settled = 0;

  /** Notes that the prompt is cached, all but its last token. */
  prefilled(): void {
    this.#rows.push(...this.tokens.slice(0, -1));
    this.#settled = this.#rows.length;
  }

  /**
   * Finds the tokens to write so that the cache holds the committed tokens and then `block`. Rows that were written for
   * an earlier block and turned out right are kept.
   *
   * @param last number of tokens at the end of `block` that must be in the run; at least 1, counting the committed
   *   token before it
   * @returns the first row to write, and the tokens from there on
   */
  extend(block: readonly number[], last: number): { at: number; tokens: number[] } {
    const wanted = [...this.tokens.slice(this.#settled), ...block];
    let same = 0;
    while (same < wanted.length - last && this.#rows[this.#settled + same] === wanted[same]) same++;
    const at = this.#settled + same;
    const tokens = wanted.slice(same);
    this.#rows.splice(at, Number.POSITIVE_INFINITY, ...tokens);
    // The newest committed token stays unsettled, so that there is always one to write.
    this.#settled = this.tokens.length - 1;
    return { at, tokens };
  }
}

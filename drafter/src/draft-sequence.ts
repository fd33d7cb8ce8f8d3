import { Sequence } from '@ptp/engine/sequence';

/** Sequence of the drafter: the committed tokens, and the token of each row in the engine's cache. */
export class DraftSequence extends Sequence {
  /** Token of each cache row. The rows after the committed tokens hold tokens of earlier blocks. */
  readonly #rows: number[] = [];
  /** Number of rows known to hold committed tokens. */
  #settled = 0;

  /** Records that the cache holds the prompt except its last token. */
  prefilled(): void {
    this.#rows.push(...this.tokens.slice(0, -1));
    this.#settled = this.#rows.length;
  }

  /**
   * Returns the tokens to write so that the cache holds the committed tokens followed by `block`. Keeps the rows that
   * an earlier block wrote with the same tokens.
   *
   * @param last minimum number of tokens to write, counted from the end of `block`. At least 1
   * @returns first row to write, and the tokens from this row on
   */
  extend(block: readonly number[], last: number): { at: number; tokens: number[] } {
    const wanted = [...this.tokens.slice(this.#settled), ...block];
    let same = 0;
    while (same < wanted.length - last && this.#rows[this.#settled + same] === wanted[same]) same++;
    const at = this.#settled + same;
    const tokens = wanted.slice(same);
    this.#rows.splice(at, Number.POSITIVE_INFINITY, ...tokens);
    // The newest committed token does not count, so that each run has a token to write.
    this.#settled = this.tokens.length - 1;
    return { at, tokens };
  }
}

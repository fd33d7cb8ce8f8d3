import { type Block, EMPTY } from '../block.ts';
import type { GrammarState } from '../types.ts';

/**
 * What a grammar leaves no choice about (names of members, quotation marks), as a source of blocks. The text must be spelt so, though
 * not with these tokens: hence a proposal like any other.
 */
export class JumpAheadProposer {
  #place: GrammarState | undefined;

  constructor(start: GrammarState) {
    this.#place = start;
  }

  /** Tokens that the text goes on with. */
  push(tokens: readonly number[]): void {
    this.#place = this.#after(tokens);
  }

  /** At most `length` tokens, should the text go on with those of `after` first. */
  propose(length: number, after: readonly number[] = []): Block {
    const tokens = this.#after(after)?.forced(length) ?? [];
    if (tokens.length === 0) return EMPTY;
    // the last one may be the beginning of a longer token, which the model would rather take
    const confidences = tokens.map((_, k) => (k < tokens.length - 1 ? 0.75 : 0.25));
    return { source: 'grammar', tokens, confidences };
  }

  #after(tokens: readonly number[]): GrammarState | undefined {
    return tokens.reduce<GrammarState | undefined>((place, token) => place?.after(token), this.#place);
  }
}

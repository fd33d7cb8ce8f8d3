import type { GrammarState } from '../types.ts';
import { type Block, EMPTY } from '../types.ts';

/**
 * Jump-ahead: proposes text that the grammar dictates, such as member names and quotation marks. The target may encode
 * this text with other tokens, so the proposal is verified like any other.
 */
export class JumpAheadProposer {
  #state: GrammarState | undefined;

  constructor(start: GrammarState) {
    this.#state = start;
  }

  /** Appends committed tokens. */
  push(tokens: readonly number[]): void {
    this.#state = this.#after(tokens);
  }

  /** Proposes at most `length` tokens, assuming that `after` is committed first. */
  propose(length: number, after: readonly number[] = []): Block {
    const tokens = this.#after(after)?.forced(length) ?? [];
    if (tokens.length === 0) return EMPTY;
    // The model may prefer a longer token that starts with the last one.
    const confidences = tokens.map((_, k) => (k < tokens.length - 1 ? 0.75 : 0.25));
    return { source: 'grammar', tokens, confidences };
  }

  #after(tokens: readonly number[]): GrammarState | undefined {
    return tokens.reduce<GrammarState | undefined>((place, token) => place?.after(token), this.#state);
  }
}

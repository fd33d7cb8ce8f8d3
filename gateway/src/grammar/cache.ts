import { startState } from './token-state.ts';
import { tokenTrie } from './token-trie.ts';
import type { GrammarState, OutputConstraint, Vocabulary } from './types.ts';

/** Maximum number of grammars to keep, so that a repeated constraint costs nothing. */
const CAPACITY = 32;

/** Cache of the most recently used grammars over one vocabulary, with all states and masks computed so far. */
export class GrammarCache {
  /** Start states, keyed by `OutputConstraint.key`. The most recently used grammar is last. */
  readonly #states = new Map<string, GrammarState>();
  readonly #vocabulary: Vocabulary;

  /** @param model model with the vocabulary size and the end-of-text tokens */
  constructor(
    tokenizer: { bytes(id: number): Uint8Array },
    model: { readonly vocabulary: number; readonly endOfText: number; readonly stopTokens?: readonly number[] },
  ) {
    const { vocabulary: size, endOfText, stopTokens = [] } = model;
    const bytes = (id: number) => tokenizer.bytes(id);
    this.#vocabulary = { size, trie: tokenTrie(size, bytes), bytes, endTokens: [endOfText, ...stopTokens] };
  }

  /** Returns the state before the first token of a constrained text. */
  start({ grammar, key }: OutputConstraint): GrammarState {
    const state = this.#states.get(key) ?? startState(grammar, this.#vocabulary);
    this.#states.delete(key);
    this.#states.set(key, state);
    const [oldest] = this.#states.keys();
    if (this.#states.size > CAPACITY && oldest !== undefined) this.#states.delete(oldest);
    return state;
  }
}

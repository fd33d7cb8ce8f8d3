import { closingTokens } from './closing-tokens.ts';
import { MemoryLimit } from './memory.ts';
import { afterPrefix, PrefixState } from './prefix.ts';
import { StringMasks } from './string-masks.ts';
import { startState } from './token-state.ts';
import { hasLonger, tokenTries } from './token-trie.ts';
import type { GrammarState, OutputConstraint, Vocabulary } from './types.ts';

/** Maximum number of cached grammars. A request whose grammar is cached reuses its states and masks. */
const CAPACITY = 32;
/** Maximum estimated size of the states and masks of all grammars together, in bytes. */
export const MEMORY_LIMIT = 128 * 2 ** 20;

/** Cache of the most recently used grammars over one vocabulary, with all states and masks computed so far. */
export class GrammarCache {
  /** Start states, keyed by `OutputConstraint.key`. The most recently used grammar is last. */
  readonly #states = new Map<string, GrammarState>();
  readonly #vocabulary: Vocabulary;
  readonly #memory: MemoryLimit;
  readonly #strings: StringMasks;

  /**
   * @param model model with the vocabulary size and the end-of-text tokens
   * @param memory limit for the states and masks of all grammars together
   */
  constructor(
    tokenizer: { bytes(id: number): Uint8Array },
    model: { readonly vocabulary: number; readonly endOfText: number; readonly stopTokens?: readonly number[] },
    memory = new MemoryLimit(MEMORY_LIMIT),
  ) {
    this.#memory = memory;
    const { vocabulary: size, endOfText, stopTokens = [] } = model;
    const bytes = (id: number) => tokenizer.bytes(id);
    // Built before the server is ready: for 150,000 tokens this takes about a second, during which no stream would
    // advance.
    const tries = tokenTries(size, bytes);
    this.#vocabulary = {
      size,
      bytes,
      endTokens: [endOfText, ...stopTokens],
      tries,
      closing: { marked: closingTokens(tries.marked, bytes), long: closingTokens(tries.long, bytes) },
    };
    this.#strings = new StringMasks(this.#vocabulary, memory);
  }

  /** Returns the state before the first token of a constrained text. */
  start({ grammar, key }: OutputConstraint): GrammarState {
    const state = this.#states.get(key) ?? startState(grammar, this.#vocabulary, this.#memory, this.#strings);
    this.#states.delete(key);
    this.#states.set(key, state);
    const [oldest] = this.#states.keys();
    if (this.#states.size > CAPACITY && oldest !== undefined) this.#states.delete(oldest);
    return state;
  }

  /** Returns the state before a text that begins with `prefix` and then satisfies the constraint. */
  startAfter(prefix: Uint8Array, constraint: OutputConstraint | undefined): GrammarState {
    if (!constraint) {
      // Not cached: the state is small, and freed with the request.
      const state = startState(afterPrefix(prefix), this.#vocabulary);
      return new PrefixState(state, prefix.length, this.#vocabulary);
    }
    const grammar = afterPrefix(prefix, constraint.grammar);
    return this.start({ grammar, key: `${Buffer.from(prefix).toString('hex')} ${constraint.key}` });
  }

  /** Returns true if the vocabulary has a token that begins with these bytes and is longer. */
  isExtended(prefix: Uint8Array): boolean {
    return hasLonger(this.#vocabulary.tries, prefix);
  }
}

import type { GrammarState, ModelInfo } from '../decode/types.ts';
import type { Tokenizer } from '../text/tokenizer.ts';
import type { Expression } from './expression.ts';
import { tokenGrammar, type Vocabulary } from './token-grammar.ts';
import { tokenTrie } from './token-trie.ts';

/** What an answer has to be. */
export interface Form {
  readonly grammar: Expression;
  /** The same for the same grammar. */
  readonly key: string;
}

/** Forms whose masks are remembered, so that a client that asks in the same form again does not wait for them. */
const KEPT = 32;

/** Forms in a pair's vocabulary. */
export class Grammars {
  /** The one that was used last comes last. */
  readonly #places = new Map<string, GrammarState>();
  readonly #vocabulary: Vocabulary;

  constructor(tokenizer: Tokenizer, { vocabulary: size, endOfText, stopTokens = [] }: ModelInfo) {
    const bytes = (id: number) => tokenizer.bytes(id);
    this.#vocabulary = { size, trie: tokenTrie(size, bytes), bytes, ends: [endOfText, ...stopTokens] };
  }

  /** Where an answer in a form begins. */
  start({ grammar, key }: Form): GrammarState {
    const place = this.#places.get(key) ?? tokenGrammar(grammar, this.#vocabulary);
    this.#places.delete(key);
    this.#places.set(key, place);
    const [oldest] = this.#places.keys();
    if (this.#places.size > KEPT && oldest !== undefined) this.#places.delete(oldest);
    return place;
  }
}

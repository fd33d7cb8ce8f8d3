import type { Expression } from './expression.ts';
import type { TokenTrie } from './token-trie.ts';

/** The position of a text in its grammar. */
export interface GrammarState {
  /** The state after one more token; undefined if the token is not allowed. A token that ends the text leads to the same state. */
  after(token: number): GrammarState | undefined;
  /** The token mask, [ceil(V / 8)]: bit t % 8 of byte t / 8 is set if token t is allowed. */
  readonly mask: Uint8Array;
  /** At most `limit` tokens whose bytes are the only ones allowed; empty if there is a choice. */
  forced(limit: number): number[];
}

/** The required form of a generated text. */
export interface OutputConstraint {
  readonly grammar: Expression;
  /** Equal for equal grammars. */
  readonly key: string;
}

/** The properties of a vocabulary that a grammar needs. */
export interface Vocabulary {
  /** V, number of token ids. */
  readonly size: number;
  readonly trie: TokenTrie;
  /** Bytes of a token; empty for special tokens. */
  readonly bytes: (id: number) => Uint8Array;
  /** Tokens that end a text, allowed wherever the text may end. */
  readonly endTokens: readonly number[];
}

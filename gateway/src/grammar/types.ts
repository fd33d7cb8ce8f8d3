import type { ClosingTokens } from './closing-tokens.ts';
import type { Expression } from './expression.ts';
import type { TokenTries } from './token-trie.ts';

/** Position of a text in its grammar. */
export interface GrammarState {
  /**
   * Returns the state after one more token, or undefined if the token is not allowed. A token that ends the text leads
   * to the same state.
   */
  after(token: number): GrammarState | undefined;
  /** Token mask, [ceil(V / 8)]. Bit t % 8 of byte t / 8 is set if token t is allowed. */
  readonly mask: Uint8Array;
  /** Returns at most `limit` tokens that must follow, byte by byte. Returns none if the next byte is not determined. */
  forced(limit: number): number[];
  /** True if all tokens are allowed from here on. Default: false. */
  readonly isOpen?: boolean;
}

/** Required form of a generated text. */
export interface OutputConstraint {
  readonly grammar: Expression;
  /** Cache key. Equal grammars have equal keys. */
  readonly key: string;
}

/** Properties of a vocabulary that a grammar needs. */
export interface Vocabulary {
  /** V, the number of token ids. */
  readonly size: number;
  readonly tries: TokenTries;
  /** Tokens of two of the tries that contain a quotation mark. */
  readonly closing: { readonly marked: ClosingTokens; readonly long: ClosingTokens };
  /** Returns the bytes of a token. Empty for special tokens. */
  readonly bytes: (id: number) => Uint8Array;
  /** End-of-text tokens. They are allowed wherever the text may end. */
  readonly endTokens: readonly number[];
}

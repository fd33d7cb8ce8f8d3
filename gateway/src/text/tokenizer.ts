import { ByteTable } from './byte-table.ts';

/** Tokens of a vocabulary, by id. */
export interface Vocabulary {
  /** Names of the tokens as the model's file spells them. */
  readonly names: readonly string[];
  /** Returns the UTF-8 bytes of a token, which may be part of a character. Empty for special tokens. */
  readonly bytesOf: (id: number) => Uint8Array;
  /** Ids of the special tokens, keyed by their text, for example `<|im_end|>`. */
  readonly special: ReadonlyMap<string, number>;
}

/**
 * Converts text to token ids, and token ids to bytes. A token may be part of a character, so its bytes may not be text.
 */
export abstract class Tokenizer {
  /** Highest token id + 1. */
  readonly size: number;
  /**
   * Number of bytes of the longest token, special tokens included. A text of b bytes has at least b / longestToken
   * tokens.
   */
  readonly longestToken: number;
  readonly #names: readonly string[];
  readonly #bytes: ByteTable;
  readonly #special: ReadonlyMap<string, number>;
  readonly #specialPattern: RegExp;

  constructor(vocabulary: Vocabulary) {
    const { names, bytesOf, special } = vocabulary;
    this.#names = names;
    this.#bytes = new ByteTable(names.length, bytesOf);
    this.#special = special;
    this.#specialPattern = alternatives([...special.keys()]);
    this.size = names.length;
    const specialLengths = [...special.keys()].map((text) => Buffer.byteLength(text));
    const lengths = [this.#bytes.maxLength, ...specialLengths];
    this.longestToken = lengths.reduce((longest, length) => Math.max(longest, length), 1);
  }

  /** Returns the token ids of a text. Special tokens are encoded as text, so that a prompt cannot inject them. */
  abstract encode(text: string): number[];

  /**
   * Returns the token ids of a text that continues another, without the space that SentencePiece adds before a text.
   */
  abstract encodeContinued(text: string): number[];

  /** Returns the token ids of the text between two special tokens of a rendered chat template. */
  protected abstract encodeAfterSpecial(text: string): number[];

  /**
   * Returns the token ids of a text, such as a rendered chat template, in which names of special tokens stand for these
   * tokens.
   *
   * @param guard character that marks special tokens that must stay text (see {@link guardSpecial}). It is removed from
   *   the text
   */
  encodeRendered(rendered: string, guard?: string): number[] {
    return rendered.split(this.#specialPattern).flatMap((part, n) => {
      const special = this.#special.get(part);
      if (special !== undefined) return [special];
      const text = guard === undefined ? part : part.replaceAll(guard, '');
      return n === 0 ? this.encode(text) : this.encodeAfterSpecial(text);
    });
  }

  /**
   * Returns the text with `guard` inserted into every special token, so that {@link encodeRendered} treats it as text.
   */
  guardSpecial(text: string, guard: string): string {
    return text.replace(this.#specialPattern, (special) => special[0] + guard + special.slice(1));
  }

  /**
   * Returns the UTF-8 bytes of a token, which may be part of a character. Empty for special tokens and for ids outside
   * the vocabulary.
   */
  bytes(id: number): Uint8Array {
    return this.#bytes.at(id) ?? new Uint8Array();
  }

  /** Returns the text of tokens. Incomplete characters become U+FFFD. */
  decode(ids: readonly number[]): string {
    return Buffer.concat(ids.map((id) => this.bytes(id))).toString('utf8');
  }

  /**
   * Returns the text of tokens that begin a text, without the space that SentencePiece adds before it. Special tokens
   * contribute nothing.
   */
  decodeWhole(ids: readonly number[]): string {
    const text = this.decode(ids);
    return this.#addsSpace() && text.startsWith(' ') ? text.slice(1) : text;
  }

  /** Returns true if the tokenizer adds a space before a text. */
  #addsSpace(): boolean {
    return this.decode(this.encode('a')).startsWith(' ');
  }

  /** Returns a token's name in the vocabulary, for example `<|endoftext|>`. Empty for ids outside the vocabulary. */
  name(id: number): string {
    return this.#names[id] ?? '';
  }
}

/**
 * Returns an expression that matches and captures any of the texts, preferring the longest. It never matches if there
 * are none.
 */
function alternatives(texts: string[]): RegExp {
  const sorted = texts.filter((text) => text !== '').sort((a, b) => b.length - a.length);
  return sorted.length === 0 ? /(?!)/g : new RegExp(`(${sorted.map(escapeRegExp).join('|')})`, 'g');
}

function escapeRegExp(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&');
}

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers';
import { PtpError } from '@ptp/core/errors.ts';

/** The parts of tokenizer.json that we read ourselves. */
interface TokenizerFile {
  readonly added_tokens?: readonly { readonly id: number; readonly content: string; readonly special?: boolean }[];
  readonly decoder?: { readonly type?: string; readonly decoders?: readonly { readonly type?: string }[] } | null;
  readonly model?: { readonly vocab?: Readonly<Record<string, number>> };
}

/**
 * Text to token ids, and token ids to bytes. Bytes rather than text, because a token of a byte-level vocabulary may be
 * a part of a character.
 */
export class Tokenizer {
  /** Highest token id + 1. */
  readonly size: number;
  /** Bytes of the longest token, special ones as they are spelt: a text of b bytes has at least b / longestToken tokens. */
  readonly longestToken: number;
  readonly #plain: HuggingFaceTokenizer;
  readonly #special: ReadonlyMap<string, number>;
  readonly #specialPattern: RegExp;
  readonly #names: readonly string[];
  readonly #bytes: readonly Uint8Array[];

  /**
   * @param file a parsed tokenizer.json with a byte-level vocabulary
   * @throws PtpError `failed_precondition` for another kind of vocabulary
   */
  constructor(file: TokenizerFile) {
    const decoders = [file.decoder, ...(file.decoder?.decoders ?? [])];
    if (!file.model?.vocab || !decoders.some((decoder) => decoder?.type === 'ByteLevel')) {
      throw new PtpError('failed_precondition', 'tokenizer.json must have a byte-level vocabulary');
    }
    const added = file.added_tokens ?? [];
    this.#special = new Map(added.filter((token) => token.special).map((token) => [token.content, token.id]));
    // Without its special tokens, the library takes their text for ordinary text.
    this.#plain = new HuggingFaceTokenizer({ ...file, added_tokens: added.filter((token) => !token.special) }, {});
    this.#specialPattern = alternatives([...this.#special.keys()]);

    const names: string[] = [];
    for (const [name, id] of Object.entries(file.model.vocab)) names[id] = name;
    const addedBytes = new Map<number, Uint8Array>();
    for (const token of added) {
      names[token.id] = token.content;
      addedBytes.set(token.id, token.special ? new Uint8Array() : new TextEncoder().encode(token.content));
    }
    this.#names = Array.from(names, (name) => name ?? '');
    this.#bytes = this.#names.map((name, id) => addedBytes.get(id) ?? fromByteAlphabet(name));
    this.size = this.#names.length;
    const specialLengths = [...this.#special.keys()].map((text) => Buffer.byteLength(text));
    const lengths = [...this.#bytes.map((bytes) => bytes.length), ...specialLengths];
    this.longestToken = lengths.reduce((longest, length) => Math.max(longest, length), 1);
  }

  /** Token ids of a text. A special token's text is text like any other, so that a prompt cannot end itself. */
  encode(text: string): number[] {
    return text === '' ? [] : this.#plain.encode(text, { add_special_tokens: false }).ids;
  }

  /**
   * Token ids of a rendered chat template, whose special tokens count as such.
   *
   * @param guard a string put inside special tokens' text that must stay text (see `guardSpecial`); it is left out
   */
  encodeRendered(rendered: string, guard: string): number[] {
    return rendered.split(this.#specialPattern).flatMap((part) => {
      const special = this.#special.get(part);
      return special === undefined ? this.encode(part.replaceAll(guard, '')) : [special];
    });
  }

  /** The text with `guard` put inside every special token's text, so that `encodeRendered` takes it for text. */
  guardSpecial(text: string, guard: string): string {
    return text.replace(this.#specialPattern, (special) => special[0] + guard + special.slice(1));
  }

  /** UTF-8 bytes of a token, perhaps a part of a character; none for special tokens and ids outside the vocabulary. */
  bytes(id: number): Uint8Array {
    return this.#bytes[id] ?? new Uint8Array();
  }

  /** A token as the vocabulary spells it, for example `<|endoftext|>`; empty for ids outside the vocabulary. */
  name(id: number): string {
    return this.#names[id] ?? '';
  }
}

/**
 * The tokenizer.json of a model folder.
 *
 * @throws PtpError `failed_precondition` if it is missing or not a tokenizer that we can use
 */
export async function loadTokenizer(folder: string): Promise<Tokenizer> {
  try {
    return new Tokenizer(JSON.parse(await readFile(join(folder, 'tokenizer.json'), 'utf8')));
  } catch (cause) {
    if (cause instanceof PtpError) throw cause;
    throw new PtpError('failed_precondition', `no readable tokenizer.json in ${folder}`, { cause });
  }
}

/** Matches any of the texts, the longest first, and captures it; matches nothing when there are none. */
function alternatives(texts: string[]): RegExp {
  const sorted = texts.filter((text) => text !== '').sort((a, b) => b.length - a.length);
  return sorted.length === 0 ? /(?!)/g : new RegExp(`(${sorted.map(escapeRegExp).join('|')})`, 'g');
}

function escapeRegExp(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&');
}

/** The bytes that a token's name stands for; a name with characters outside the alphabet stands for itself. */
function fromByteAlphabet(name: string): Uint8Array {
  const bytes = Array.from(name, (character) => byteAlphabet.get(character));
  return bytes.includes(undefined) ? new TextEncoder().encode(name) : Uint8Array.from(bytes as number[]);
}

/**
 * GPT-2's spelling of the 256 bytes by visible characters: printable Latin-1 stands for itself, the others follow from
 * U+0100 in order (`bytes_to_unicode` in openai/gpt-2 encoder.py).
 */
const byteAlphabet: ReadonlyMap<string, number> = (() => {
  const printable = (byte: number) => (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 255 && byte !== 173);
  const bytes = Array.from({ length: 256 }, (_, byte) => byte);
  const others = bytes.filter((byte) => !printable(byte));
  const character = (byte: number) => String.fromCharCode(printable(byte) ? byte : 256 + others.indexOf(byte));
  return new Map(bytes.map((byte) => [character(byte), byte]));
})();

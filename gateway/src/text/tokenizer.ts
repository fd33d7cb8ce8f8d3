import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers';
import { PtpError } from '@ptp/protocol/errors';

/** The parts of tokenizer.json that we read ourselves. */
interface TokenizerFile {
  readonly added_tokens?: readonly { readonly id: number; readonly content: string; readonly special?: boolean }[];
  readonly decoder?: { readonly type?: string; readonly decoders?: readonly { readonly type?: string }[] } | null;
  readonly model?: { readonly vocab?: Readonly<Record<string, number>>; readonly byte_fallback?: boolean };
  readonly pre_tokenizer?: PreTokenizer | null;
}

interface PreTokenizer {
  readonly type?: string;
  readonly prepend_scheme?: string;
  readonly pretokenizers?: readonly PreTokenizer[];
}

/**
 * Text to token ids, and token ids to bytes. Bytes rather than text, because a token may be a part of a character.
 *
 * Two kinds of vocabulary: byte-level (GPT-2, Llama 3, Qwen), and SentencePiece's with byte fallback (Llama 2, TinyLlama,
 * Mistral). The latter begins a text with a space of its own; a continuation's first word keeps its space.
 */
export class Tokenizer {
  /** Highest token id + 1. */
  readonly size: number;
  /** Bytes of the longest token, special ones as they are spelt: a text of b bytes has at least b / longestToken tokens. */
  readonly longestToken: number;
  readonly #plain: HuggingFaceTokenizer;
  /** For what follows a special token. */
  readonly #continued: HuggingFaceTokenizer;
  readonly #special: ReadonlyMap<string, number>;
  readonly #specialPattern: RegExp;
  readonly #names: readonly string[];
  readonly #bytes: readonly Uint8Array[];

  /**
   * @param file a parsed tokenizer.json
   * @throws PtpError `failed_precondition` for another kind of vocabulary
   */
  constructor(file: TokenizerFile) {
    const bytesOf = spelling(file);
    if (!file.model?.vocab || !bytesOf) {
      throw new PtpError('failed_precondition', 'tokenizer.json must have a vocabulary by bytes or with byte fallback');
    }
    const added = file.added_tokens ?? [];
    this.#special = new Map(added.filter((token) => token.special).map((token) => [token.content, token.id]));
    // Without its special tokens, the library takes their text for ordinary text.
    const plain = { ...file, added_tokens: added.filter((token) => !token.special) };
    this.#plain = new HuggingFaceTokenizer(plain, {});
    const continued = withoutFirstSpace(file.pre_tokenizer);
    this.#continued = continued ? new HuggingFaceTokenizer({ ...plain, pre_tokenizer: continued }, {}) : this.#plain;
    this.#specialPattern = alternatives([...this.#special.keys()]);

    const names: string[] = [];
    for (const [name, id] of Object.entries(file.model.vocab)) names[id] = name;
    const addedBytes = new Map<number, Uint8Array>();
    for (const token of added) {
      names[token.id] = token.content;
      addedBytes.set(token.id, token.special ? new Uint8Array() : new TextEncoder().encode(token.content));
    }
    this.#names = Array.from(names, (name) => name ?? '');
    this.#bytes = this.#names.map((name, id) => addedBytes.get(id) ?? bytesOf(name));
    this.size = this.#names.length;
    const specialLengths = [...this.#special.keys()].map((text) => Buffer.byteLength(text));
    const lengths = [...this.#bytes.map((bytes) => bytes.length), ...specialLengths];
    this.longestToken = lengths.reduce((longest, length) => Math.max(longest, length), 1);
  }

  /** Token ids of a text. A special token's text is text like any other, so that a prompt cannot end itself. */
  encode(text: string): number[] {
    return idsOf(this.#plain, text);
  }

  /** Token ids of a text that others stand before: without the space that some vocabularies begin a text with. */
  encodeContinued(text: string): number[] {
    return idsOf(this.#continued, text);
  }

  /**
   * Token ids of a rendered chat template, whose special tokens count as such.
   *
   * @param guard a string put inside special tokens' text that must stay text (see `guardSpecial`); it is left out
   */
  encodeRendered(rendered: string, guard: string): number[] {
    return rendered.split(this.#specialPattern).flatMap((part, n) => {
      const special = this.#special.get(part);
      const tokenizer = n === 0 ? this.#plain : this.#continued;
      return special === undefined ? idsOf(tokenizer, part.replaceAll(guard, '')) : [special];
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

  /** The text of tokens; parts of a character that are none together become U+FFFD. */
  decode(ids: readonly number[]): string {
    return Buffer.concat(ids.map((id) => this.bytes(id))).toString('utf8');
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

function idsOf(tokenizer: HuggingFaceTokenizer, text: string): number[] {
  return text === '' ? [] : tokenizer.encode(text, { add_special_tokens: false }).ids;
}

/** How names of the vocabulary stand for bytes, undefined for kinds that we do not know. */
function spelling(file: TokenizerFile): ((name: string) => Uint8Array) | undefined {
  const decoders = [file.decoder, ...(file.decoder?.decoders ?? [])].map((decoder) => decoder?.type);
  if (decoders.includes('ByteLevel')) return fromByteAlphabet;
  return file.model?.byte_fallback && decoders.includes('ByteFallback') ? fromSentencePiece : undefined;
}

/** The same pre-tokenizer for text that is not at the beginning; undefined where that makes no difference. */
function withoutFirstSpace(given: PreTokenizer | null | undefined): PreTokenizer | undefined {
  if (given?.type === 'Metaspace' && given.prepend_scheme === 'first') return { ...given, prepend_scheme: 'never' };
  const parts = given?.pretokenizers?.map((part) => withoutFirstSpace(part) ?? part);
  return parts?.some((part, n) => part !== given?.pretokenizers?.[n]) ? { ...given, pretokenizers: parts } : undefined;
}

/** SentencePiece's spelling: `<0x0A>` is one byte, U+2581 is a space. */
function fromSentencePiece(name: string): Uint8Array {
  const byte = /^<0x([0-9A-F]{2})>$/.exec(name)?.[1];
  return byte ? Uint8Array.of(Number.parseInt(byte, 16)) : new TextEncoder().encode(name.replaceAll('\u2581', ' '));
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

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers';
import { PtpError } from '@ptp/protocol/errors';

/** The parts of tokenizer.json that are read here rather than by the library. */
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
 * Text to token ids, and token ids to bytes: not to text, because a token may be part of a character.
 *
 * Supports byte-level vocabularies (GPT-2, Llama 3, Qwen) and SentencePiece with byte fallback (Llama 2, TinyLlama,
 * Mistral). SentencePiece adds a space before a text; a continuation keeps its text as it is.
 */
export class Tokenizer {
  /** Highest token id + 1. */
  readonly size: number;
  /** Bytes of the longest token, special tokens included: a text of b bytes has at least b / longestToken tokens. */
  readonly longestToken: number;
  readonly #plain: HuggingFaceTokenizer;
  /** Encodes text that does not begin a prompt. */
  readonly #continued: HuggingFaceTokenizer;
  readonly #special: ReadonlyMap<string, number>;
  readonly #specialPattern: RegExp;
  readonly #names: readonly string[];
  readonly #bytes: readonly Uint8Array[];

  /**
   * @param file a parsed tokenizer.json
   * @throws PtpError `failed_precondition` for any other kind of vocabulary
   */
  constructor(file: TokenizerFile) {
    const bytesOf = spelling(file);
    if (!file.model?.vocab || !bytesOf) {
      throw new PtpError(
        'failed_precondition',
        'tokenizer.json must have a byte-level vocabulary, or SentencePiece with byte fallback',
      );
    }
    const added = file.added_tokens ?? [];
    this.#special = new Map(added.filter((token) => token.special).map((token) => [token.content, token.id]));
    // Without special tokens, the library encodes their text as ordinary text.
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

  /** Token ids of a text. Special tokens are encoded as text, so that a prompt cannot inject them. */
  encode(text: string): number[] {
    return idsOf(this.#plain, text);
  }

  /** Token ids of a text that continues another: without the space that SentencePiece adds before a text. */
  encodeContinued(text: string): number[] {
    return idsOf(this.#continued, text);
  }

  /**
   * Token ids of a rendered chat template. Special tokens count as such.
   *
   * @param guard marks special tokens that must stay text, see {@link guardSpecial}; removed from the text
   */
  encodeRendered(rendered: string, guard: string): number[] {
    return rendered.split(this.#specialPattern).flatMap((part, n) => {
      const special = this.#special.get(part);
      const tokenizer = n === 0 ? this.#plain : this.#continued;
      return special === undefined ? idsOf(tokenizer, part.replaceAll(guard, '')) : [special];
    });
  }

  /** The text with `guard` inserted into every special token, so that {@link encodeRendered} treats it as text. */
  guardSpecial(text: string, guard: string): string {
    return text.replace(this.#specialPattern, (special) => special[0] + guard + special.slice(1));
  }

  /** UTF-8 bytes of a token, possibly part of a character; empty for special tokens and ids outside the vocabulary. */
  bytes(id: number): Uint8Array {
    return this.#bytes[id] ?? new Uint8Array();
  }

  /** The text of tokens; incomplete characters become U+FFFD. */
  decode(ids: readonly number[]): string {
    return Buffer.concat(ids.map((id) => this.bytes(id))).toString('utf8');
  }

  /** A token's name in the vocabulary, for example `<|endoftext|>`; empty for ids outside the vocabulary. */
  name(id: number): string {
    return this.#names[id] ?? '';
  }
}

/**
 * The tokenizer.json of a model folder.
 *
 * @throws PtpError `failed_precondition` if the file is missing or its vocabulary is not supported
 */
export async function loadTokenizer(folder: string): Promise<Tokenizer> {
  try {
    return new Tokenizer(JSON.parse(await readFile(join(folder, 'tokenizer.json'), 'utf8')));
  } catch (cause) {
    if (cause instanceof PtpError) throw cause;
    throw new PtpError('failed_precondition', `cannot read tokenizer.json in ${folder}`, { cause });
  }
}

/** Matches and captures any of the texts, preferring the longest; never matches if there are none. */
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

/** Decodes a name of the vocabulary to bytes; undefined for unsupported kinds of vocabulary. */
function spelling(file: TokenizerFile): ((name: string) => Uint8Array) | undefined {
  const decoders = [file.decoder, ...(file.decoder?.decoders ?? [])].map((decoder) => decoder?.type);
  if (decoders.includes('ByteLevel')) return fromByteAlphabet;
  return file.model?.byte_fallback && decoders.includes('ByteFallback') ? fromSentencePiece : undefined;
}

/** The pre-tokenizer for text that does not begin a prompt; undefined if it is the same. */
function withoutFirstSpace(given: PreTokenizer | null | undefined): PreTokenizer | undefined {
  if (given?.type === 'Metaspace' && given.prepend_scheme === 'first') return { ...given, prepend_scheme: 'never' };
  const parts = given?.pretokenizers?.map((part) => withoutFirstSpace(part) ?? part);
  return parts?.some((part, n) => part !== given?.pretokenizers?.[n]) ? { ...given, pretokenizers: parts } : undefined;
}

/** Decodes SentencePiece's spelling: `<0x0A>` is one byte, U+2581 is a space. */
function fromSentencePiece(name: string): Uint8Array {
  const byte = /^<0x([0-9A-F]{2})>$/.exec(name)?.[1];
  return byte ? Uint8Array.of(Number.parseInt(byte, 16)) : new TextEncoder().encode(name.replaceAll('\u2581', ' '));
}

/** Decodes GPT-2's spelling; a name with characters outside the alphabet stands for itself. */
function fromByteAlphabet(name: string): Uint8Array {
  const bytes = Array.from(name, (character) => byteAlphabet.get(character));
  return bytes.includes(undefined) ? new TextEncoder().encode(name) : Uint8Array.from(bytes as number[]);
}

/**
 * GPT-2's spelling of the 256 bytes by visible characters: printable Latin-1 stands for itself, the rest are numbered
 * from U+0100 (`bytes_to_unicode` in openai/gpt-2 encoder.py).
 */
const byteAlphabet: ReadonlyMap<string, number> = (() => {
  const printable = (byte: number) => (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 255 && byte !== 173);
  const bytes = Array.from({ length: 256 }, (_, byte) => byte);
  const others = bytes.filter((byte) => !printable(byte));
  const character = (byte: number) => String.fromCharCode(printable(byte) ? byte : 256 + others.indexOf(byte));
  return new Map(bytes.map((byte) => [character(byte), byte]));
})();

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers';
import { PtpError } from '@ptp/protocol/errors';
import { fromByteAlphabet, fromSentencePiece } from './token-bytes.ts';
import { Tokenizer, type Vocabulary } from './tokenizer.ts';

/** The parts of tokenizer.json that this file reads. The library reads the rest. */
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
 * Tokenizer that is defined by a tokenizer.json.
 *
 * Supports byte-level vocabularies (GPT-2, Llama 3, Qwen) and SentencePiece with byte fallback (Llama 2, TinyLlama,
 * Mistral). SentencePiece adds a space before a text, but not before a continuation.
 */
export class JsonTokenizer extends Tokenizer {
  readonly #plain: HuggingFaceTokenizer;
  /** Encodes text that does not begin a prompt. */
  readonly #continued: HuggingFaceTokenizer;

  /**
   * @param file content of a tokenizer.json, parsed
   * @throws PtpError `failed_precondition` for any other kind of vocabulary
   */
  constructor(file: TokenizerFile) {
    super(vocabularyOf(file));
    // Without special tokens, the library encodes their names as ordinary text.
    const plain = { ...file, added_tokens: (file.added_tokens ?? []).filter((token) => !token.special) };
    this.#plain = new HuggingFaceTokenizer(plain, {});
    const continued = withoutFirstSpace(file.pre_tokenizer);
    this.#continued = continued ? new HuggingFaceTokenizer({ ...plain, pre_tokenizer: continued }, {}) : this.#plain;
  }

  encode(text: string): number[] {
    return idsOf(this.#plain, text);
  }

  encodeContinued(text: string): number[] {
    return idsOf(this.#continued, text);
  }

  protected encodeAfterSpecial(text: string): number[] {
    return this.encodeContinued(text);
  }
}

/**
 * Loads the tokenizer.json of a model folder.
 *
 * @throws PtpError `failed_precondition` if the file is missing or its vocabulary is not supported
 */
export async function loadTokenizer(folder: string): Promise<Tokenizer> {
  try {
    return new JsonTokenizer(JSON.parse(await readFile(join(folder, 'tokenizer.json'), 'utf8')));
  } catch (cause) {
    if (cause instanceof PtpError) throw cause;
    throw new PtpError('failed_precondition', `cannot read tokenizer.json in ${folder}`, { cause });
  }
}

function idsOf(tokenizer: HuggingFaceTokenizer, text: string): number[] {
  return text === '' ? [] : tokenizer.encode(text, { add_special_tokens: false }).ids;
}

function vocabularyOf(file: TokenizerFile): Vocabulary {
  const bytesOf = spelling(file);
  if (!file.model?.vocab || !bytesOf) {
    throw new PtpError(
      'failed_precondition',
      'tokenizer.json must have a byte-level vocabulary, or SentencePiece with byte fallback',
    );
  }
  const added = file.added_tokens ?? [];
  const found: string[] = [];
  for (const [name, id] of Object.entries(file.model.vocab)) found[id] = name;
  const addedBytes = new Map<number, Uint8Array>();
  for (const token of added) {
    found[token.id] = token.content;
    addedBytes.set(token.id, token.special ? new Uint8Array() : new TextEncoder().encode(token.content));
  }
  const names = Array.from(found, (name) => name ?? '');
  return {
    names,
    bytesOf: (id) => addedBytes.get(id) ?? bytesOf(names[id] ?? ''),
    special: new Map(added.filter((token) => token.special).map((token) => [token.content, token.id])),
  };
}

/**
 * Returns the function that decodes a name of the vocabulary to bytes. Returns undefined for unsupported kinds of
 * vocabulary.
 */
function spelling(file: TokenizerFile): ((name: string) => Uint8Array) | undefined {
  const decoders = [file.decoder, ...(file.decoder?.decoders ?? [])].map((decoder) => decoder?.type);
  if (decoders.includes('ByteLevel')) return fromByteAlphabet;
  return file.model?.byte_fallback && decoders.includes('ByteFallback') ? fromSentencePiece : undefined;
}

/** Returns the pre-tokenizer for text that does not begin a prompt, or undefined if it is the same as for other text. */
function withoutFirstSpace(given: PreTokenizer | null | undefined): PreTokenizer | undefined {
  if (given?.type === 'Metaspace' && given.prepend_scheme === 'first') return { ...given, prepend_scheme: 'never' };
  const parts = given?.pretokenizers?.map((part) => withoutFirstSpace(part) ?? part);
  return parts?.some((part, n) => part !== given?.pretokenizers?.[n]) ? { ...given, pretokenizers: parts } : undefined;
}

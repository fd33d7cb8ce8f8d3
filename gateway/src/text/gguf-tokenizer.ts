import { PtpError } from '@ptp/protocol/errors';
import { startLlama } from '@ptp/service-kit/llama-cpp';
import type { LlamaVocabulary, TokenizerMetadata } from 'node-llama-cpp';
import { fromByteAlphabet, fromSentencePiece } from './token-bytes.ts';
import { Tokenizer, type Vocabulary } from './tokenizer.ts';

/** Token types of llama.cpp (llama_token_type). */
const UNKNOWN = 2;
const CONTROL = 3;
const USER_DEFINED = 4;
const UNUSED = 5;

/** Functions that decode a token's spelling, keyed by `tokenizer.ggml.model`. */
const SPELLINGS: Readonly<Record<string, (name: string) => Uint8Array>> = {
  gpt2: fromByteAlphabet,
  llama: fromSentencePiece,
  t5: fromSentencePiece,
  gemma4: fromSentencePiece,
};

/**
 * Values of `tokenizer.ggml.pre` for models that were trained on text in Unicode's form C. llama.cpp does not convert
 * text to this form.
 */
const NORMALIZED = new Set(['qwen2']);

/** Parts of a GGUF file that the gateway needs. */
export interface GgufText {
  readonly tokenizer: Tokenizer;
  /** Source of the chat template, if the file has one. */
  readonly chatTemplate: string | undefined;
  /** Name of the token that begins texts, which templates may write. Empty if there is none. */
  readonly beginName: string;
}

/**
 * Loads the vocabulary of a GGUF file, without its weights.
 *
 * @param ends ids of the end-of-text tokens; these count as special tokens whatever the file says
 * @throws PtpError `failed_precondition` if node-llama-cpp is missing or the vocabulary is not supported
 */
export async function loadGgufText(path: string, ends: readonly number[]): Promise<GgufText> {
  const load = { modelPath: path, vocabOnly: true, ignoreMemorySafetyChecks: true } as const;
  try {
    const llama = await startLlama({ logLevel: 'fatal', gpu: false });
    let model = await llama.loadModel(load);
    const { ggml, chat_template: chatTemplate } = model.fileInfo.metadata.tokenizer;
    const vocabulary = vocabularyOf(ggml, ends, path);
    delete ggml.merges; // llama.cpp has its own copy.
    const [first = -1] = model.tokenize('a', false);
    const addsSpace = vocabulary.bytesOf(first)[0] === SPACE;
    if (addsSpace) {
      // Load the model again without the space. The tokenizer adds it to texts, but not to continuations.
      await model.dispose();
      model = await llama.loadModel({
        ...load,
        metadataOverrides: { tokenizer: { ggml: { add_space_prefix: false } } },
      });
    }
    const tokenizer = new GgufTokenizer(model, vocabulary, { addsSpace, normalized: NORMALIZED.has(ggml.pre ?? '') });
    return { tokenizer, chatTemplate, beginName: vocabulary.names[ggml.bos_token_id ?? -1] ?? '' };
  } catch (cause) {
    if (cause instanceof PtpError) throw cause;
    throw new PtpError('failed_precondition', `the vocabulary of \`${path}\` cannot be loaded by llama.cpp`, { cause });
  }
}

const SPACE = 0x20;

/** llama.cpp's own tokenizer, so that the token ids of any GGUF file are the same as in llama.cpp's server. */
class GgufTokenizer extends Tokenizer {
  readonly #model: LlamaVocabulary;
  readonly #addsSpace: boolean;
  readonly #normalized: boolean;

  constructor(model: LlamaVocabulary, vocabulary: Vocabulary, kind: { addsSpace: boolean; normalized: boolean }) {
    super(vocabulary);
    this.#model = model;
    this.#addsSpace = kind.addsSpace;
    this.#normalized = kind.normalized;
  }

  encode(text: string): number[] {
    return this.encodeContinued(this.#addsSpace && text !== '' ? ` ${text}` : text);
  }

  encodeContinued(text: string): number[] {
    return this.#model.tokenize(this.#normalized ? text.normalize('NFC') : text, false);
  }

  protected encodeAfterSpecial(text: string): number[] {
    return this.encode(text);
  }
}

function vocabularyOf(
  { model, tokens, token_type: types = [] }: TokenizerMetadata['ggml'],
  ends: readonly number[],
  path: string,
): Vocabulary {
  const bytesOf = SPELLINGS[model];
  if (!bytesOf) {
    const known = Object.keys(SPELLINGS).join(', ');
    const message = `\`tokenizer.ggml.model\` in \`${path}\` must be one of ${known}, got ${model}`;
    throw new PtpError('failed_precondition', message);
  }
  const isSpecial = (id: number) => types[id] === CONTROL || types[id] === UNKNOWN || ends.includes(id);
  const tokenBytes = (id: number) => {
    const name = tokens[id] ?? '';
    if (types[id] === UNUSED || isSpecial(id)) return new Uint8Array();
    return types[id] === USER_DEFINED ? new TextEncoder().encode(name) : bytesOf(name);
  };
  return {
    names: tokens,
    bytesOf: tokenBytes,
    special: new Map(tokens.flatMap((name, id): [string, number][] => (isSpecial(id) ? [[name, id]] : []))),
  };
}

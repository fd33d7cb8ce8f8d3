import { PtpError } from '@ptp/protocol/errors';
import { treeDepth } from '@ptp/protocol/sampling-params';
import type { GgufFileInfo, Llama, LlamaContext, LlamaModel } from 'node-llama-cpp';
import type { EngineInfo, EngineOptions } from '../types.ts';

/** Longest sequence unless `contextLength` is set; each sequence's cache is allocated whole at the start. */
const DEFAULT_CONTEXT = 4096;
const DEFAULT_SEQUENCES = 8;
/** Bytes of a key or value; llama.cpp keeps them in float16. */
const BYTES_PER_VALUE = 2;

/** A GGUF that is ready for runs. */
export interface LoadedGguf {
  readonly llama: Llama;
  readonly model: LlamaModel;
  readonly context: LlamaContext;
  readonly info: EngineInfo;
}

/** @throws PtpError `failed_precondition` if node-llama-cpp or the file is missing or cannot be loaded */
export async function loadGguf(options: EngineOptions): Promise<LoadedGguf> {
  const { dir: modelPath, threads, contextLength, gpuLayers = 'auto', sequences = DEFAULT_SEQUENCES } = options;
  const { getLlama, LlamaLogLevel } = await importLlama();
  try {
    const llama = await getLlama({
      build: 'never',
      skipDownload: true,
      logLevel: LlamaLogLevel.error,
      ...(threads !== undefined && { maxThreads: threads }),
    });
    const model = await llama.loadModel({ modelPath, gpuLayers });
    const length = Math.min(contextLength ?? DEFAULT_CONTEXT, model.trainContextSize);
    // node-llama-cpp moves the window once a sequence has contextSize - 1 tokens.
    const context = await model.createContext({
      contextSize: length + 1,
      sequences,
      ...(threads !== undefined && { threads }),
    });
    return { llama, model, context, info: engineInfo(model.fileInfo, length, sequences) };
  } catch (cause) {
    throw new PtpError('failed_precondition', `\`${modelPath}\` cannot be loaded by llama.cpp`, { cause });
  }
}

async function importLlama(): Promise<typeof import('node-llama-cpp')> {
  process.env.NODE_LLAMA_CPP_SKIP_DOWNLOAD ??= 'true';
  try {
    return await import('node-llama-cpp');
  } catch (cause) {
    const message =
      'GGUF models need a package that is not installed: run `npm install --no-save node-llama-cpp@3.22.1`';
    throw new PtpError('failed_precondition', message, { cause });
  }
}

/** The metadata that sizes a cache; architectures without attention keys are not supported. */
interface Architecture {
  readonly block_count?: number;
  readonly embedding_length?: number;
  readonly attention?: {
    readonly head_count?: number | number[];
    readonly head_count_kv?: number | number[];
    readonly key_length?: number;
    readonly value_length?: number;
  };
}

function engineInfo({ metadata, architectureMetadata }: GgufFileInfo, contextLength: number, sequences: number) {
  const vocabulary = metadata.tokenizer.ggml.tokens.length;
  const { block_count: layers = 0, embedding_length: width = 0, attention = {} } = architectureMetadata as Architecture;
  const { head_count: heads = 1, head_count_kv: kvHeads = heads } = attention;
  const headWidth = width / (Array.isArray(heads) ? (heads[0] ?? 1) : heads);
  const { key_length: keyWidth = headWidth, value_length: valueWidth = headWidth } = attention;
  const totalHeads = Array.isArray(kvHeads) ? kvHeads.reduce((sum, n) => sum + n, 0) : layers * kvHeads;
  return {
    vocabulary,
    contextLength,
    uniformsPerPosition: treeDepth(vocabulary),
    maxSlots: sequences,
    bytesPerToken: totalHeads * (keyWidth + valueWidth) * BYTES_PER_VALUE,
  };
}

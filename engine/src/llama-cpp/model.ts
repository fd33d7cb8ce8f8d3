import { PtpError } from '@ptp/protocol/errors';
import { loadManifest, type Manifest } from '@ptp/protocol/manifest';
import type { Llama, LlamaContext, LlamaModel } from 'node-llama-cpp';
import type { EngineInfo, EngineOptions } from '../types.ts';

const DEFAULT_SEQUENCES = 8;

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
  const manifest = await loadManifest(modelPath, contextLength);
  const { getLlama, LlamaLogLevel } = await importLlama();
  try {
    const llama = await getLlama({
      build: 'never',
      skipDownload: true,
      logLevel: LlamaLogLevel.error,
      ...(threads !== undefined && { maxThreads: threads }),
    });
    const model = await llama.loadModel({ modelPath, gpuLayers });
    // node-llama-cpp moves the window once a sequence has contextSize - 1 tokens.
    const context = await model.createContext({
      contextSize: manifest.context_length + 1,
      sequences,
      ...(threads !== undefined && { threads }),
    });
    return { llama, model, context, info: engineInfo(manifest, sequences) };
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

function engineInfo(manifest: Manifest, maxSlots: number): EngineInfo {
  return {
    vocabulary: manifest.sizes.vocab,
    contextLength: manifest.context_length,
    uniformsPerPosition: manifest.uniforms_per_position,
    maxSlots,
    bytesPerToken: manifest.bytes_per_token.target,
  };
}

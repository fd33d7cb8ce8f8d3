import { setImmediate } from 'node:timers/promises';
import { unusable } from '@ptp/protocol/errors';
import { ggufIdentity } from '@ptp/protocol/gguf-files';
import { loadManifest, type Manifest } from '@ptp/protocol/manifest';
import { defaultThreads, startLlama } from '@ptp/service-kit/llama-cpp';
import { availableMemory } from '@ptp/service-kit/memory';
import type { Llama, LlamaContext, LlamaModel } from 'node-llama-cpp';
import type { EngineInfo, EngineOptions } from '../types.ts';

/** Maximum number of sequences if `sequences` is not set. The number is lower if memory does not suffice. */
const DEFAULT_SEQUENCES = 8;
/** Maximum number of sequences in a context of llama.cpp (LLAMA_MAX_SEQ). */
const MAX_SEQUENCES = 256;
/** Share of the memory of the machine or container that the KV caches may use if `sequences` is not set. */
const RAM_SHARE = 1 / 4;
/** Share of the GPU memory left by the weights that the KV caches may use if `sequences` is not set. */
const VRAM_SHARE = 1 / 2;

/** Formats of weights with which results on a CPU depend on the batch, whatever the attention. */
const FLOATS: readonly string[] = ['F32', 'F16', 'BF16'];
/**
 * Maximum number of tokens in one decode call on a CPU. It is the length of a prompt's chunk, because larger batches
 * need more memory. With flash attention it is less: from 64 tokens on, flash attention adds in another order, so that
 * the results of a prompt would depend on the runs in which it is read.
 */
const CPU_BATCH = { flash: 63, other: 128 };

/** A loaded GGUF model that is ready for runs. */
export interface LoadedGguf {
  readonly llama: Llama;
  readonly model: LlamaModel;
  readonly context: LlamaContext;
  readonly info: EngineInfo;
}

/**
 * Loads a GGUF file.
 *
 * @throws PtpError `failed_precondition` if node-llama-cpp is not installed or the file cannot be loaded
 */
export async function loadGguf(options: EngineOptions): Promise<LoadedGguf> {
  const { dir: modelPath, contextLength, gpuLayers = 'auto' } = options;
  const [manifest, files] = await Promise.all([loadManifest(modelPath, contextLength), ggufIdentity(modelPath)]);
  const errors: string[] = [];
  const llama = await startLlama({
    logLevel: 'error',
    logger: (_, message) => errors.push(message.trim()),
    ...(gpuLayers === 0 && { gpu: false }),
    ...(options.threads && { maxThreads: options.threads }),
  });
  try {
    const model = await llama.loadModel({ modelPath, gpuLayers });
    if (model.fileInsights.isRecurrent || model.fileInsights.isHybrid) {
      throw new Error('it is a recurrent model, whose state cannot be rolled back');
    }
    const threads = options.threads || defaultThreads(llama);
    const attention = llama.gpu ? undefined : attentionOnCpu(manifest);
    const sequences = Math.min(options.sequences || (await affordableSequences(llama, manifest)), MAX_SEQUENCES);
    const context = await model.createContext({
      // node-llama-cpp shifts the context once a sequence has contextSize - 1 tokens.
      contextSize: manifest.context_length + 1,
      sequences,
      // Without this option, layers with a sliding window drop the rows to which a rollback returns.
      swaFullCache: true,
      ...attention,
      threads,
    });
    const runtime = await reproducibleRuntime(llama);
    const info = {
      ...engineInfo(manifest, sequences),
      device: llama.gpu ? `${llama.gpu} (${(await llama.getGpuDeviceNames()).join(', ')})` : 'cpu',
      threads,
      ...(attention && { prefillChunk: attention.batchSize }),
      ...(runtime && { fingerprint: [files, ...runtime, threads, attention] }),
    };
    return { llama, model, context, info };
  } catch (cause) {
    await setImmediate(); // The log arrives on the event loop.
    await llama.dispose();
    // llama.cpp first logs the reason, and then that loading has failed.
    const reason = errors.find((message) => message !== '') ?? (cause as Error).message;
    throw unusable(modelPath, `cannot be loaded by llama.cpp: ${reason}`, cause);
  }
}

/**
 * Returns the attention to use on a CPU. Flash attention is slower there, but keeps results independent of the batch if
 * the weights' products do. On a GPU, the self-check reports whether results depend on the batch.
 */
function attentionOnCpu({ quantisation }: Manifest) {
  const flashAttention = !FLOATS.includes(quantisation);
  return { flashAttention, batchSize: flashAttention ? CPU_BATCH.flash : CPU_BATCH.other };
}

/**
 * Describes the parts of llama.cpp that determine the bits of results. Returns undefined on a GPU, where they also
 * depend on drivers and libraries, and for a binary that was built on this machine.
 */
async function reproducibleRuntime(llama: Llama): Promise<readonly unknown[] | undefined> {
  if (llama.gpu || llama.buildType !== 'prebuilt') return undefined;
  const { getModuleVersion } = await import('node-llama-cpp');
  const variables = Object.entries(process.env).filter(([name]) => name.startsWith('GGML_'));
  return [await getModuleVersion(), llama.llamaCppRelease, llama.systemInfo, variables];
}

/** Returns the number of sequences, 1 to 8, whose KV caches fit into a share of the memory. */
async function affordableSequences(llama: Llama, { context_length, bytes_per_token }: Manifest): Promise<number> {
  const memory = llama.gpu ? (await llama.getVramState()).free * VRAM_SHARE : availableMemory() * RAM_SHARE;
  const fitting = Math.floor(memory / (context_length * bytes_per_token.target));
  return Math.max(1, Math.min(DEFAULT_SEQUENCES, fitting));
}

function engineInfo(manifest: Manifest, maxSlots: number): EngineInfo {
  return {
    vocabulary: manifest.sizes.vocab,
    contextLength: manifest.context_length,
    uniformsPerPosition: manifest.uniforms_per_position,
    maxSlots,
    maxSequences: maxSlots,
    bytesPerToken: manifest.bytes_per_token.target,
  };
}

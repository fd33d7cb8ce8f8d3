import { PtpError } from '@ptp/protocol/errors';
import type { Llama, LlamaOptions } from 'node-llama-cpp';
import manifest from '../package.json' with { type: 'json' };

/**
 * Starts llama.cpp from the binaries of npm; never builds or downloads any. node-llama-cpp is imported on demand, so
 * that a process that serves a model folder does not need the package.
 *
 * @throws PtpError `failed_precondition` if node-llama-cpp is not installed
 */
export async function startLlama(options: Omit<LlamaOptions, 'build' | 'skipDownload'>): Promise<Llama> {
  process.env.NODE_LLAMA_CPP_SKIP_DOWNLOAD ??= 'true';
  const { getLlama } = await import('node-llama-cpp').catch((cause: unknown) => {
    const install = `npm install --no-save node-llama-cpp@${manifest.peerDependencies['node-llama-cpp']}`;
    const message = `GGUF models need a package that is not installed: run \`${install}\``;
    throw new PtpError('failed_precondition', message, { cause });
  });
  return getLlama({ build: 'never', skipDownload: true, ...options });
}

/**
 * Returns the number of threads to use by default: one per physical core, except one core that stays free. llama.cpp's
 * threads spin, so a run takes many times as long if another process needs one of their cores.
 */
export function defaultThreads({ cpuMathCores }: Llama): number {
  return Math.max(1, cpuMathCores - 1);
}

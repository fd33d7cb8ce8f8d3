/** Chooses the GPUs of the workers and their shares of the memory. */
import { gpuMemory, visibleGpus } from './gpus.ts';
import type { ReadyModel } from './start-model.ts';
import { StartError } from './supervisor.ts';
import { weightBytes } from './weights.ts';

/** Share of a GPU's memory that its workers use together. */
const USABLE = 0.9;

/** GPUs of a worker, as variables and options of ptp-engine. */
export interface Gpus {
  readonly env: NodeJS.ProcessEnv;
  readonly options: readonly string[];
}

/** Models that run in workers. */
export interface Placed {
  readonly target: ReadyModel | undefined;
  /** Draft model, or the checkpoint of a PTP drafter with the manifest of its target. */
  readonly draft: ReadyModel | undefined;
  /** Number of GPUs for the target. */
  readonly processes: number;
}

/**
 * Gives the target the first GPUs, and the draft model the next one. If there is no further GPU, they share the first.
 *
 * @throws StartError if there are fewer GPUs than the target needs
 */
export function placeWorkers(env: NodeJS.ProcessEnv, placed: Placed): { target: Gpus; draft: Gpus } {
  const none = { env: {}, options: [] };
  const memory = placed.target || placed.draft ? gpuMemory(env) : [];
  const [first] = memory;
  if (first === undefined) return { target: none, draft: none };
  const names = visibleGpus(env) ?? memory.map((_, i) => String(i));
  const used = placed.target ? placed.processes : 0;
  if (used > names.length) {
    throw new StartError(`--tensor-parallel must be at most ${names.length}, the number of GPUs, got ${used}`);
  }
  const on = (gpus: readonly string[], share: number): Gpus => ({
    env: { CUDA_VISIBLE_DEVICES: gpus.join(',') },
    options: ['--memory-fraction', share.toFixed(3)],
  });
  const next = names[used];
  if (!placed.target || !placed.draft || next !== undefined) {
    return { target: on(names.slice(0, used), USABLE), draft: on([next ?? ''], USABLE) };
  }
  const share = draftShare(first, sizeOf(placed.target, used), sizeOf(placed.draft, 1));
  return { target: on(names.slice(0, used), USABLE - share), draft: on(names.slice(0, 1), share) };
}

/** Memory that a model needs on one GPU, in bytes. */
interface Size {
  readonly weights: number;
  readonly perToken: number;
}

/** Returns the draft model's share of a GPU's memory with which both KV caches can hold the same number of tokens. */
export function draftShare(memory: number, target: Size, draft: Size): number {
  const free = Math.max(0, USABLE * memory - target.weights - draft.weights);
  const tokens = free / (target.perToken + draft.perToken);
  return Math.min(USABLE / 2, (draft.weights + tokens * draft.perToken) / memory);
}

function sizeOf({ path, manifest }: ReadyModel, gpus: number): Size {
  return { weights: weightBytes(path) / gpus, perToken: manifest.bytes_per_token.target / gpus };
}

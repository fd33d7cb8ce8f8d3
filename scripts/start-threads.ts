/** Divides the cores of this machine between a target and a draft model that both run in llama.cpp. */
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { isGguf } from '@ptp/protocol/manifest';
import { settings } from '@ptp/service-kit/settings';
import { verifierSettings } from '../verifier/src/settings.ts';
import type { Models } from './start-model.ts';
import { root, sourceType } from './supervisor.ts';

/** Environment variables of the services. */
interface DividedThreads {
  readonly verifier?: NodeJS.ProcessEnv;
  readonly drafter?: NodeJS.ProcessEnv;
}

/**
 * Returns PTP_ENGINE_THREADS of verifier and drafter. Both run at the same time, and llama.cpp slows down if its threads
 * compete for cores, but neither process knows of the other. Returns nothing if the user has set the number, or if the
 * models do not share the CPU.
 *
 * @param engine address of the target's engine, or empty if the verifier runs the target
 */
export async function divideThreads(
  env: NodeJS.ProcessEnv,
  { target, draftModel }: Models,
  engine: string,
  probe = probeLlama,
): Promise<DividedThreads> {
  const { threads, gpuLayers } = settings(verifierSettings, env);
  if (threads || engine || !draftModel || !isGguf(target.path) || !isGguf(draftModel.path)) return {};
  const device = await probe(env);
  if (!device || (device.gpu && gpuLayers !== 0)) return {};
  const { verifying, drafting } = shares(device.threads);
  const { name } = verifierSettings.threads;
  return { verifier: { [name]: `${verifying}` }, drafter: { [name]: `${drafting}` } };
}

/** Output of llama-device.ts. */
export interface LlamaDevice {
  /** True if llama.cpp would use a GPU. */
  readonly gpu: boolean;
  /** Default number of threads. */
  readonly threads: number;
}

/** Returns undefined if llama.cpp does not start. */
async function probeLlama(env: NodeJS.ProcessEnv): Promise<LlamaDevice | undefined> {
  const script = join(root, 'scripts', `llama-device${sourceType}`);
  const probe = await promisify(execFile)(process.execPath, [script], { env }).catch(() => undefined);
  return probe && JSON.parse(probe.stdout);
}

/** Returns each process's number of threads. The draft model gets a quarter, because it is smaller. */
export function shares(threads: number): { verifying: number; drafting: number } {
  const drafting = Math.max(1, Math.floor(threads / 4));
  return { verifying: Math.max(1, threads - drafting), drafting };
}

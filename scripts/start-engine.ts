/** Engines in other processes: the workers of `--engine torch`, or the running engine that `--engine ADDRESS` names. */
import { existsSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { EngineService } from '@ptp/protocol/gen/ptp/v1/engine_pb';
import { checkHealth } from '@ptp/protocol/health';
import { isHuggingFaceFolder } from '@ptp/protocol/manifest';
import { settings } from '@ptp/service-kit/settings';
import { verifierSettings } from '../verifier/src/settings.ts';
import type { Style } from './log-lines.ts';
import { type Gpus, placeWorkers } from './start-gpus.ts';
import { TORCH } from './start-help.ts';
import type { Models, ReadyModel } from './start-model.ts';
import type { EngineFlags } from './start-options.ts';
import { enginePython, type Python } from './start-python.ts';
import { shares } from './start-threads.ts';
import { type Service, StartError } from './supervisor.ts';

/** Engines that the services connect to. */
export interface Engines {
  /** PTP_ENGINE of the verifier. Empty if the verifier runs the model. */
  readonly target: string;
  /** PTP_ENGINE of the drafter. Empty if the drafter runs its model, or if there is no drafter. */
  readonly drafter: string;
  /** Workers to start before the services. */
  readonly workers: readonly Service[];
}

/** Returns true if something drafts besides prompt lookup. */
export function hasDrafter({ target, draftModel }: Models, { drafter }: Engines): boolean {
  return drafter !== '' || draftModel !== undefined || target.manifest.drafter !== undefined;
}

/** Process of ptp-engine. */
interface Worker {
  readonly name: 'target' | 'draft';
  readonly style: Style;
  readonly address: string;
  /** Role, model and options of ptp-engine. */
  readonly words: readonly string[];
  readonly gpus: Gpus;
  /** Number of processes that share the model. */
  readonly processes: number;
}

/**
 * Decides which models run in workers, and prepares these.
 *
 * @param address address at which each worker listens
 * @throws StartError if the flags do not fit the models, or Python is missing and cannot be installed
 */
export async function prepareEngines(
  env: NodeJS.ProcessEnv,
  flags: EngineFlags,
  models: Models,
  address: Readonly<Record<Worker['name'], string>>,
): Promise<Engines> {
  checkFlags(flags, models);
  const targetWords = flags.engine === TORCH ? ['target', models.target.path] : undefined;
  const draft = draftOf(flags, models);
  const gpus = placeWorkers(env, {
    target: targetWords && models.target,
    draft: draft?.model,
    processes: flags.tensorParallel,
  });
  // Two workers on the CPU share its cores.
  const sharesCpu = targetWords && draft && gpus.target.options.length === 0;
  const { verifying, drafting } = sharesCpu ? shares(availableParallelism()) : { verifying: 0, drafting: 0 };
  const workers: Worker[] = [];
  if (targetWords) {
    const words = [...targetWords, ...optionsOf(env, models.target, verifying)];
    const processes = flags.tensorParallel;
    workers.push({ name: 'target', style: 'blue', address: address.target, words, gpus: gpus.target, processes });
  }
  if (draft) {
    const words = [...draft.words, ...optionsOf(env, draft.model, drafting)];
    workers.push({ name: 'draft', style: 'yellow', address: address.draft, words, gpus: gpus.draft, processes: 1 });
  }
  const python = workers.length > 0 ? await enginePython(env) : undefined;
  return {
    target: targetWords ? address.target : flags.engine,
    drafter: draft ? address.draft : flags.drafter,
    workers: python ? workers.map((worker) => serviceOf(worker, python)) : [],
  };
}

/** Worker that drafts. */
interface Draft {
  /** First arguments of ptp-engine: its role, and the paths of its models. */
  readonly words: readonly string[];
  /** The draft model, or the checkpoint of a PTP drafter with the manifest of its target. */
  readonly model: ReadyModel;
}

/** Returns undefined if no worker drafts. */
function draftOf({ engine, drafter }: EngineFlags, { target, draftModel }: Models): Draft | undefined {
  if (existsSync(drafter)) {
    const words = ['drafter', drafter, '--target', target.path];
    return { words, model: { path: drafter, manifest: target.manifest } };
  }
  if (engine === '' || !draftModel || !isHuggingFaceFolder(draftModel.path)) return undefined;
  return { words: ['target', draftModel.path], model: draftModel };
}

function checkFlags({ engine, drafter, tensorParallel }: EngineFlags, { target, draftModel }: Models): void {
  if (engine === '' && drafter !== '') throw new StartError('--drafter needs --engine: add --engine torch');
  if (engine !== TORCH && tensorParallel > 1) throw new StartError('--tensor-parallel needs --engine torch');
  if (drafter !== '' && draftModel) throw new StartError('use either --drafter or --draft-model: only one can draft');
  if (engine !== TORCH || isHuggingFaceFolder(target.path)) return;
  throw new StartError(`--engine torch needs a folder with config.json and .safetensors files, got ${target.path}`);
}

/**
 * Returns the options that the services' settings imply.
 *
 * @param ownThreads number of CPU threads unless a setting has another, or 0 for ptp-engine's default
 */
function optionsOf(env: NodeJS.ProcessEnv, { manifest }: ReadyModel, ownThreads: number): string[] {
  const { sequences, prefixCacheMegabytes, threads: setThreads } = settings(verifierSettings, env);
  const threads = setThreads || ownThreads;
  return [
    ...['--context-length', String(manifest.context_length)],
    ...(sequences > 0 ? ['--max-sequences', String(sequences)] : []),
    ...(threads > 0 ? ['--threads', String(threads)] : []),
    ...(prefixCacheMegabytes === 0 ? ['--no-prefix-cache'] : []),
  ];
}

function serviceOf({ name, style, address, words, gpus, processes }: Worker, python: Python): Service {
  const launcher = ['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', String(processes)];
  const command = [
    ...(processes > 1 ? launcher : []),
    '-m',
    'ptp_engine',
    ...words,
    '--listen',
    address,
    '--exit-with-stdin',
  ];
  return {
    name,
    style,
    command: [python.path, ...command, ...gpus.options],
    env: { ...python.env, ...gpus.env },
    stopsLast: true,
    isReady: async () => (await checkHealth(address, EngineService, { deadlineMs: 1_000 })) === 'SERVING',
  };
}

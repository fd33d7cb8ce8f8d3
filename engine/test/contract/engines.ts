import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Worker } from 'node:worker_threads';
import { serve } from '@ptp/protocol/server';
import { pino } from 'pino';
import { localAddresses } from '../../../scripts/local-address.ts';
import { ggufFolder, ggufMissing } from '../../../test/gguf.ts';
import { startWorker, type Worker as TorchWorker, torchMissing, torchModels } from '../../../test/torch.ts';
import { openDraftEngine, openTargetEngine } from '../../src/open-engine.ts';
import { engineService } from '../../src/testing/engine-service.ts';
import { FakeDraftEngine, FakeTargetEngine } from '../../src/testing/fake-engine.ts';
import { FakeSglang } from '../../src/testing/fake-sglang.ts';
import { engineScorer } from '../../src/testing/token-scores.ts';
import type { DraftEngine, EngineOptions, SequenceId, TargetEngine } from '../../src/types.ts';

// The engines that the contract tests run.

/** Open engine of a test. */
export interface Opened<E> {
  readonly engine: E;
  /** Kills what runs the model. */
  readonly kill?: () => unknown;
  /** Frees what `engine.dispose` does not free. */
  readonly release?: () => Promise<unknown>;
}

export interface ContractEngine<E> {
  readonly name: string;
  /** Reason why the engine cannot run here. */
  readonly missing?: string | undefined;
  /** False for the fake engine, which has no logits to adjust, rank or exclude, and no prefix cache. */
  readonly isReal: boolean;
  /** Number of decimals of log-probabilities that are the same in all batches. Default: all, and so are the picks. */
  readonly decimals?: number;
  /** False for SGLang, which returns log-probabilities, so that logits cannot be scaled. Default: true. */
  readonly scales?: boolean;
  /** @param options options that differ from the defaults of the tests */
  open(options?: Partial<EngineOptions>): Promise<Opened<E>>;
}

export const tinyModel = fileURLToPath(new URL('../../../test/models/tiny', import.meta.url));

const fakeLanguage = { vocabulary: 257, contextLength: 256, uniformsPerPosition: 9 };
const onnxOptions = { dir: tinyModel, prefixCacheBytes: 1e6 };
/** The same target, exported in the form of large ones: one graph, which writes into the caches. */
const inPlaceModel = fileURLToPath(new URL('../../../test/models/tiny-in-place', import.meta.url));

/** The same in int8, with float16 caches. */
const int8Model = fileURLToPath(new URL('../../../test/models/tiny-int8', import.meta.url));

/** The same target, exported for GPUs. onnxruntime has its operations on the CPU too. */
const gpuModel = fileURLToPath(new URL('../../../test/models/tiny-gpu', import.meta.url));

export const targets: ContractEngine<TargetEngine>[] = [
  {
    name: 'fake',
    isReal: false,
    async open() {
      const engine = new FakeTargetEngine(fakeLanguage);
      return { engine, kill: () => engine.die() };
    },
  },
  { name: 'ONNX', isReal: true, open: (options) => inThread(openTargetEngine({ ...onnxOptions, ...options })) },
  {
    name: 'ONNX for GPUs',
    isReal: true,
    // On the CPU, GroupQueryAttention adds in an order that depends on the run.
    decimals: 5,
    open: (options) => inThread(openTargetEngine({ ...onnxOptions, dir: gpuModel, ...options })),
  },
  {
    name: 'ONNX in place',
    isReal: true,
    open: (options) => inThread(openTargetEngine({ ...onnxOptions, dir: inPlaceModel, ...options })),
  },
  {
    name: 'ONNX in place, int8',
    isReal: true,
    open: (options) => inThread(openTargetEngine({ ...onnxOptions, dir: int8Model, ...options })),
  },
  {
    name: 'remote over ONNX',
    isReal: true,
    open: async (options) =>
      remote(await openTargetEngine({ ...onnxOptions, ...options }), openTargetEngine, onnxOptions),
  },
  {
    name: 'SGLang over ONNX',
    isReal: true,
    scales: false,
    async open(options) {
      const local = await openTargetEngine(onnxOptions);
      const fake = await FakeSglang.start({ vocabulary: 257, score: engineScorer(local) });
      const release = () => Promise.all([fake.stop(), local.dispose()]);
      return { engine: await openTargetEngine({ ...onnxOptions, ...options, address: fake.url }), release };
    },
  },
  {
    name: 'llama.cpp',
    missing: ggufMissing,
    isReal: true,
    async open(options) {
      // With quantised weights, results do not depend on the batch.
      const dir = join(ggufFolder(), 'default.q8_0.gguf');
      const limits = { threads: 1, contextLength: 256, sequences: 4, prefixCacheBytes: 1e9 };
      return { engine: await openTargetEngine({ dir, ...limits, ...options }) };
    },
  },
  {
    name: 'PyTorch',
    missing: torchMissing,
    isReal: true,
    decimals: 3,
    open: () => torch(openTargetEngine, 'target', tinyTorch()),
  },
];

export const drafters: ContractEngine<DraftEngine>[] = [
  {
    name: 'fake',
    isReal: false,
    async open() {
      const engine = new FakeDraftEngine({ ...fakeLanguage, accuracy: 0.7 });
      return { engine, kill: () => engine.die() };
    },
  },
  { name: 'ONNX', isReal: true, open: (options) => inThread(openDraftEngine({ ...onnxOptions, ...options })) },
  {
    name: 'remote over ONNX',
    isReal: true,
    open: async (options) =>
      remote(await openDraftEngine({ ...onnxOptions, ...options }), openDraftEngine, onnxOptions),
  },
  {
    name: 'PyTorch',
    missing: torchMissing,
    isReal: true,
    open: () => torch(openDraftEngine, 'drafter', join(torchModels(), 'drafter.pt'), '--target', tinyTorch()),
  },
];

/** Workers that the tests of a file share, because they take seconds to start. */
const workers = new Map<string, TorchWorker>();

/** Stops the shared workers. Each file calls it at its end, because files may share this module. */
export async function stopWorkers(): Promise<void> {
  const running = [...workers.values()];
  workers.clear();
  await Promise.all(running.map((worker) => worker.stop()));
}

/** Returns the target of `tinyModel` as a Hugging Face folder. */
const tinyTorch = () => join(torchModels(), 'tiny');

async function torch<E>(
  open: (options: EngineOptions) => Promise<E>,
  ...[role, ...words]: [string, ...string[]]
): Promise<Opened<E>> {
  const running = workers.get(role);
  const worker = running ?? (await startWorker(role, ...words, '--context-length', '256', '--device', 'cpu'));
  workers.set(role, worker);
  const kill = async () => {
    workers.delete(role);
    worker.child.kill('SIGKILL');
    await worker.stop();
  };
  return { engine: await open({ dir: tinyModel, address: worker.address }), kill };
}

/** Runs `use` on a new sequence, and closes the sequence. */
export async function onNewSequence<T>(
  engine: TargetEngine | DraftEngine,
  use: (sequence: SequenceId) => Promise<T>,
): Promise<T> {
  const sequence = engine.open();
  try {
    return await use(sequence);
  } finally {
    engine.close(sequence);
  }
}

async function inThread<E>(opening: Promise<E>): Promise<Opened<E>> {
  const engine = await opening;
  return { engine, kill: () => (Reflect.get(engine as object, 'worker') as Worker).terminate() };
}

/**
 * Serves an engine at an address of this machine and connects to it. Only the connection is disposed of with the engine;
 * `release` stops the server and the engine behind it.
 */
export async function remote<E extends TargetEngine | DraftEngine>(
  local: E,
  open: (options: EngineOptions) => Promise<E>,
  options: EngineOptions,
): Promise<Opened<E>> {
  const folder = await mkdtemp(join(tmpdir(), 'ptp-engine-'));
  const { engine: address } = await localAddresses(folder, ['engine']);
  const server = await serve({ address, services: [engineService(local)], logger: pino({ level: 'silent' }) });
  const release = async () => {
    await server.close(0);
    await local.dispose();
    await rm(folder, { recursive: true });
  };
  return { engine: await open({ ...options, address }), kill: () => server.close(0), release };
}

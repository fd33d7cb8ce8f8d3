import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { PtpError } from '@ptp/protocol/errors';
import { checkFiles, loadManifest, type Manifest } from '@ptp/protocol/manifest';
import type {
  DraftEngine,
  DraftOutput,
  DraftSlot,
  Engine,
  EngineInfo,
  EngineOptions,
  PrefixCacheUsage,
  RunResult,
  SequenceId,
  TargetEngine,
  TargetOutput,
  TargetSlot,
} from '../types.ts';
import { checkDraftSlots, checkEmpty, checkTargetSlots } from '../validate-slots.ts';
import type { FromWorker, ToWorker, WorkerModel } from './worker.ts';

/**
 * The target of a model folder in onnxruntime on the CPU, in a thread of its own.
 *
 * @throws PtpError `failed_precondition` if the folder's files are missing or damaged
 */
export async function openTargetEngine(options: EngineOptions): Promise<TargetEngine> {
  return new OnnxTargetEngine(await start('target', options));
}

/** The drafter of a model folder; else as `openTargetEngine`. */
export async function openDraftEngine(options: EngineOptions): Promise<DraftEngine> {
  return new OnnxDraftEngine(await start('drafter', options));
}

/** @throws PtpError `failed_precondition` if the folder holds a target alone */
function drafterOf({ drafter }: Manifest): NonNullable<Manifest['drafter']> {
  if (drafter) return drafter;
  throw new PtpError('failed_precondition', 'model folder: `manifest.json` has no `drafter`: it is of a target alone');
}

/** Whether the drafter finds by itself how much of a block is right. */
function checksBlocks(manifest: Manifest): boolean {
  return drafterOf(manifest).kind === 'feature';
}

/** Layers of the drafter's context stream, each with a cache. */
function contextLayers(manifest: Manifest): number {
  return checksBlocks(manifest) ? manifest.sizes.layers : Math.max(...drafterOf(manifest).source) + 1;
}

/** A model's thread that is ready for runs. */
interface Started {
  readonly worker: Worker;
  readonly info: EngineInfo;
  readonly manifest: Manifest;
  readonly keepsPrefixes: boolean;
}

async function start(
  kind: WorkerModel['kind'],
  { dir, threads = 1, prefixCacheBytes = 0 }: EngineOptions,
): Promise<Started> {
  const manifest = await loadManifest(dir);
  const { sizes, max_slots: slotCounts, context_length: contextLength } = manifest;
  const heads = (kind === 'drafter' ? drafterOf(manifest).sizes : undefined) ?? sizes;
  const graphs = slotCounts.map((slots) => ({ slots, name: `${kind}.b${slots}.onnx` }));
  await checkFiles(dir, manifest, [`${kind}.weights`, ...graphs.map((graph) => graph.name)]);
  const model: WorkerModel = {
    kind,
    graphs: graphs.map(({ slots, name }) => ({ slots, path: join(dir, name) })),
    layers: kind === 'target' ? sizes.layers : contextLayers(manifest),
    checksBlocks: kind === 'drafter' && checksBlocks(manifest),
    rowWidth: heads.kv_heads * heads.head_width,
    contextLength,
    vocabulary: sizes.vocab,
    uniformsPerPosition: manifest.uniforms_per_position,
    threads,
    prefixCacheBytes,
  };
  const info: EngineInfo = {
    vocabulary: sizes.vocab,
    contextLength,
    uniformsPerPosition: manifest.uniforms_per_position,
    maxSlots: Math.max(...slotCounts),
    bytesPerToken: manifest.bytes_per_token[kind] ?? 0,
  };
  const worker = new Worker(new URL('./worker.ts', import.meta.url), { workerData: model });
  await new Promise<void>((resolve, reject) => {
    const fail = (cause: unknown) =>
      reject(new PtpError('failed_precondition', `the ${kind} cannot be loaded`, { cause }));
    worker.once('message', () => resolve());
    worker.once('error', fail);
    worker.once('exit', fail);
  });
  return { worker, info, manifest, keepsPrefixes: prefixCacheBytes > 0 };
}

interface PendingRun {
  readonly slots: readonly (TargetSlot | DraftSlot)[];
  readonly resolve: (result: RunResult<never>) => void;
  readonly reject: (error: PtpError) => void;
}

interface PendingReuse {
  readonly sequence: SequenceId;
  readonly resolve: (rows: number) => void;
  readonly reject: (error: PtpError) => void;
}

/** The main thread's side: checks runs, numbers them, and keeps count of sequences, rows and bytes. */
class OnnxSequences implements Engine {
  readonly info: EngineInfo;
  readonly died: Promise<Error>;
  /** Whether there is a prefix cache. */
  private readonly keepsPrefixes: boolean;
  private readonly tellDeath: (reason: Error) => void;
  private readonly worker: Worker;
  private readonly exited: Promise<void>;
  private readonly sequences = new Map<SequenceId, { rows: number; bytes: number }>();
  private readonly pending = new Map<number, PendingRun>();
  private readonly reusing = new Map<number, PendingReuse>();
  private prefix: PrefixCacheUsage = { sequences: 0, bytes: 0, lookups: 0, hits: 0, reusedTokens: 0 };
  private dead: PtpError | undefined;
  private nextSequence = 1;
  private nextRun = 1;

  constructor({ worker, info, keepsPrefixes }: Started) {
    const { promise, resolve } = Promise.withResolvers<Error>();
    this.died = promise;
    this.tellDeath = resolve;
    this.worker = worker;
    this.info = info;
    this.keepsPrefixes = keepsPrefixes;
    worker.on('message', (message: FromWorker) => this.receive(message));
    worker.on('error', (cause) => this.die(new PtpError('unavailable', 'the engine has failed', { cause })));
    this.exited = new Promise((resolve) => {
      worker.on('exit', () => {
        this.die(new PtpError('unavailable', 'the engine has stopped'));
        resolve();
      });
    });
  }

  open(): SequenceId {
    if (this.dead) throw this.dead;
    const sequence = this.nextSequence++;
    this.sequences.set(sequence, { rows: 0, bytes: 0 });
    return sequence;
  }

  reusePrefix(sequence: SequenceId, tokens: readonly number[]): Promise<number> {
    return new Promise((resolve, reject) => {
      if (this.dead) throw this.dead;
      checkEmpty(sequence, this.rowsOf);
      if (!this.keepsPrefixes) {
        resolve(0);
        return;
      }
      const id = this.nextRun++;
      this.post({ type: 'reuse', id, sequence, tokens });
      this.reusing.set(id, { sequence, resolve, reject });
    });
  }

  close(sequence: SequenceId): void {
    if (this.sequences.delete(sequence) && !this.dead) this.post({ type: 'close', sequence });
  }

  usage(): { sequences: number; cacheBytes: number } {
    let cacheBytes = 0;
    for (const { bytes } of this.sequences.values()) cacheBytes += bytes;
    return { sequences: this.sequences.size, cacheBytes };
  }

  prefixCache(): PrefixCacheUsage {
    return this.prefix;
  }

  async dispose(): Promise<void> {
    if (!this.dead) {
      this.fail(new PtpError('unavailable', 'the engine has been stopped'));
      this.post({ type: 'stop' });
    }
    await this.exited;
  }

  protected rowsOf = (sequence: SequenceId): number | undefined => this.sequences.get(sequence)?.rows;

  /** Sends checked slots to the thread; runs are done in the order of these calls. */
  protected send<Output>(slots: readonly (TargetSlot | DraftSlot)[]): Promise<RunResult<Output>> {
    return new Promise<RunResult<Output>>((resolve, reject) => {
      if (this.dead) throw this.dead;
      const id = this.nextRun++;
      this.post({ type: 'run', id, slots });
      this.pending.set(id, { slots, resolve, reject });
      for (const { sequence, at, tokens } of slots) this.record(sequence, { rows: at + tokens.length });
    });
  }

  private record(sequence: SequenceId, change: { rows?: number; bytes?: number }): void {
    const entry = this.sequences.get(sequence);
    if (entry) Object.assign(entry, change);
  }

  private post(message: ToWorker): void {
    this.worker.postMessage(message);
  }

  private receive(message: FromWorker): void {
    if (message.type === 'ready') return;
    if (message.type === 'parked') {
      this.prefix = { ...this.prefix, sequences: message.sequences, bytes: message.bytes };
      return;
    }
    if (message.type === 'reused') {
      this.reused(message);
      return;
    }
    const run = this.pending.get(message.id);
    if (!run) return;
    this.pending.delete(message.id);
    if (message.type === 'result') {
      for (const [i, { sequence }] of run.slots.entries()) this.record(sequence, { bytes: message.cacheBytes[i] ?? 0 });
      run.resolve({ outputs: message.outputs as never[], runMicros: message.runMicros });
    } else {
      // What such a run has written is unknown; what stood before its first row still holds.
      for (const { sequence, at } of run.slots) {
        this.record(sequence, { rows: Math.min(at, this.rowsOf(sequence) ?? 0) });
      }
      run.reject(new PtpError('internal', 'a run of the model has failed', { cause: message.reason }));
    }
  }

  private reused({ id, rows, cacheBytes }: FromWorker & { type: 'reused' }): void {
    const { lookups, hits, reusedTokens } = this.prefix;
    const counts = { lookups: lookups + 1, hits: hits + Number(rows > 0), reusedTokens: reusedTokens + rows };
    this.prefix = { ...this.prefix, ...counts };
    const waiting = this.reusing.get(id);
    if (!waiting) return;
    this.reusing.delete(id);
    this.record(waiting.sequence, { rows, bytes: cacheBytes });
    waiting.resolve(rows);
  }

  private die(error: PtpError): void {
    if (!this.dead) this.tellDeath(error);
    this.fail(error);
  }

  private fail(error: PtpError): void {
    if (this.dead) return;
    this.dead = error;
    this.sequences.clear();
    for (const run of this.pending.values()) run.reject(error);
    this.pending.clear();
    for (const waiting of this.reusing.values()) waiting.reject(error);
    this.reusing.clear();
  }
}

class OnnxTargetEngine extends OnnxSequences implements TargetEngine {
  async run(slots: readonly TargetSlot[]): Promise<RunResult<TargetOutput>> {
    checkTargetSlots(slots, this.info, this.rowsOf);
    return this.send<TargetOutput>(slots);
  }
}

class OnnxDraftEngine extends OnnxSequences implements DraftEngine {
  readonly checksBlocks: boolean;
  readonly maxBranchLength: number;
  readonly yieldCurve: readonly number[];
  readonly yieldCurveAfterMiss: readonly number[];

  constructor(started: Started) {
    super(started);
    const drafter = drafterOf(started.manifest);
    this.checksBlocks = checksBlocks(started.manifest);
    this.maxBranchLength = drafter.max_branch_length;
    this.yieldCurve = drafter.yield_curve;
    this.yieldCurveAfterMiss = drafter.yield_curve_after_miss ?? drafter.yield_curve;
  }

  async run(slots: readonly DraftSlot[]): Promise<RunResult<DraftOutput>> {
    checkDraftSlots(slots, this, this.rowsOf);
    return this.send<DraftOutput>(slots);
  }
}

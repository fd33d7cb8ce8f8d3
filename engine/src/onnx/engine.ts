import { extname } from 'node:path';
import { Worker } from 'node:worker_threads';
import { PtpError } from '@ptp/protocol/errors';
import type { Manifest } from '@ptp/protocol/manifest';
import { EngineBase } from '../engine-base.ts';
import type {
  DraftEngine,
  DraftOutput,
  DraftSlot,
  Engine,
  EngineOptions,
  PrefixCacheUsage,
  RunResult,
  SequenceId,
  TargetEngine,
  TargetOutput,
  TargetSlot,
} from '../types.ts';
import { checkDraftSlots, checkEmpty, checkTargetSlots } from '../validate-slots.ts';
import { startOnDevice } from './device.ts';
import type { FromWorker, Request, ReuseAnswer, RunAnswer, ToWorker } from './messages.ts';
import { drafterOf, loadModel, type ModelKind, type OnnxModel } from './model.ts';

// onnxruntime 1.30 and later sends telemetry unless this variable is set before a worker loads the native library.
process.env.ORT_DISABLE_TELEMETRY ??= '1';

/**
 * Opens the target of a model folder in onnxruntime, in a separate thread.
 *
 * @throws PtpError `failed_precondition` if the folder's files are missing or damaged, or if the processor that
 *   `options.device` names cannot run the target
 */
export async function openTargetEngine(options: EngineOptions): Promise<TargetEngine> {
  return new OnnxTargetEngine(await start('target', options));
}

/** Opens the drafter of a model folder. Otherwise the same as `openTargetEngine`. */
export async function openDraftEngine(options: EngineOptions): Promise<DraftEngine> {
  return new OnnxDraftEngine(await start('drafter', options));
}

/** Loaded model with its thread. */
interface Started {
  readonly worker: Worker;
  readonly model: OnnxModel;
  readonly manifest: Manifest;
}

async function start(kind: ModelKind, options: EngineOptions): Promise<Started> {
  const { model, manifest } = await loadModel(kind, options);
  return startOnDevice(model, options, async (placed) => {
    const worker = new Worker(new URL(`./worker${extname(import.meta.filename)}`, import.meta.url), {
      workerData: placed,
    });
    await new Promise<void>((resolve, reject) => {
      const fail = (cause: unknown) =>
        reject(new PtpError('failed_precondition', `the ${kind} in \`${options.dir}\` cannot be loaded`, { cause }));
      worker.once('message', () => resolve());
      worker.once('error', fail);
      worker.once('exit', fail);
    });
    return { worker, model: placed, manifest };
  });
}

/** Main-thread side of a model: validates runs, sends them to the worker thread, and counts rows and bytes. */
abstract class OnnxEngine extends EngineBase implements Engine {
  private readonly worker: Worker;
  private readonly exited: Promise<void>;
  private readonly keepsPrefixes: boolean;
  private prefix: PrefixCacheUsage = { sequences: 0, bytes: 0, lookups: 0, hits: 0, reusedTokens: 0 };

  constructor({ worker, model }: Started) {
    super(model.info);
    this.worker = worker;
    this.keepsPrefixes = model.prefixCacheBytes > 0;
    worker.on('message', (message: FromWorker) => this.receive(message));
    worker.on('error', (cause) => this.die(new PtpError('unavailable', 'the engine has failed', { cause })));
    this.exited = new Promise((resolve) => {
      worker.on('exit', () => {
        this.die(new PtpError('unavailable', 'the engine has stopped'));
        resolve();
      });
    });
  }

  async reusePrefix(sequence: SequenceId, tokens: readonly number[]): Promise<number> {
    checkEmpty(sequence, this.rowsOf);
    if (!this.keepsPrefixes) return 0;
    const { rows, cacheBytes } = await this.request<ReuseAnswer>({ type: 'reuse', sequence, tokens });
    const { lookups, hits, reusedTokens } = this.prefix;
    const counts = { lookups: lookups + 1, hits: hits + Number(rows > 0), reusedTokens: reusedTokens + rows };
    this.prefix = { ...this.prefix, ...counts };
    this.record(sequence, { rows, bytes: cacheBytes });
    return rows;
  }

  protected override release(sequence: SequenceId): void {
    this.post({ type: 'close', sequence });
  }

  prefixCache(): PrefixCacheUsage {
    return this.prefix;
  }

  async dispose(): Promise<void> {
    if (!this.dead) {
      this.end(new PtpError('unavailable', 'the engine has been stopped'));
      this.post({ type: 'stop' });
    }
    await this.exited;
  }

  /** Sends validated slots to the worker thread, which runs them in the order of the calls. */
  protected async send<Output>(slots: readonly (TargetSlot | DraftSlot)[]): Promise<RunResult<Output>> {
    const answer = this.request<RunAnswer<Output>>({ type: 'run', slots });
    for (const { sequence, at, tokens } of slots) this.record(sequence, { rows: at + tokens.length });
    try {
      const { outputs, runMicros, cacheBytes } = await answer;
      for (const [i, { sequence }] of slots.entries()) this.record(sequence, { bytes: cacheBytes[i] ?? 0 });
      return { outputs, runMicros };
    } catch (error) {
      this.recordFailure(slots);
      throw error;
    }
  }

  private request<Answer>(request: Request): Promise<Answer> {
    const { id, answer } = this.begin<Answer>();
    this.post({ ...request, id });
    return answer;
  }

  private post(message: ToWorker): void {
    this.worker.postMessage(message);
  }

  private receive(message: FromWorker): void {
    if (message.type === 'parked') {
      const { sequences, bytes, droppedTokens } = message;
      this.prefix = { ...this.prefix, sequences, bytes, droppedTokens };
    } else if (message.type === 'answer') {
      this.settle(message.id, message.answer);
    } else if (message.type === 'failed') {
      this.settle(message.id, new PtpError('internal', 'a model run has failed', { cause: message.reason }));
    }
  }
}

class OnnxTargetEngine extends OnnxEngine implements TargetEngine {
  async run(slots: readonly TargetSlot[]): Promise<RunResult<TargetOutput>> {
    checkTargetSlots(slots, this.info, this.rowsOf);
    return this.send<TargetOutput>(slots);
  }
}

class OnnxDraftEngine extends OnnxEngine implements DraftEngine {
  readonly checksBlocks: boolean;
  readonly maxBranchLength: number;
  readonly yieldCurve: readonly number[];
  readonly yieldCurveAfterMiss: readonly number[];

  constructor(started: Started) {
    super(started);
    const drafter = drafterOf(started.manifest);
    this.checksBlocks = started.model.checksBlocks;
    this.maxBranchLength = drafter.max_branch_length;
    this.yieldCurve = drafter.yield_curve;
    this.yieldCurveAfterMiss = drafter.yield_curve_after_miss ?? drafter.yield_curve;
  }

  async run(slots: readonly DraftSlot[]): Promise<RunResult<DraftOutput>> {
    checkDraftSlots(slots, this, this.rowsOf);
    return this.send<DraftOutput>(slots);
  }
}

import type { BidiCall, RequestInit, Response } from '@ptp/protocol/client';
import { PtpError } from '@ptp/protocol/errors';
import type { PrefixCacheFacts } from '@ptp/protocol/gen/ptp/v1/common_pb';
import type { DrafterFacts, EngineService } from '@ptp/protocol/gen/ptp/v1/engine_pb';
import { EngineBase } from '../engine-base.ts';
import { startError } from '../start-error.ts';
import type {
  ContextSlot,
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
import { type Connected, connectEngine, defaultLimits, type RemoteLimits } from './connect.ts';
import { draftResult, draftRun, errorOf, runFailure, targetResult, targetRun } from './messages.ts';

/**
 * Connects to an engine that runs the target of a model in another process (proto/ptp/v1/engine.proto). Waits until the
 * engine is ready.
 *
 * @throws PtpError `failed_precondition` if there is no engine at `options.address` or it does not fit the model
 */
export async function openTargetEngine(options: EngineOptions, limits = defaultLimits): Promise<TargetEngine> {
  return new RemoteTargetEngine(await connected('target', options, limits));
}

/** Connects to an engine that runs a drafter. Otherwise the same as `openTargetEngine`. */
export async function openDraftEngine(options: EngineOptions, limits = defaultLimits): Promise<DraftEngine> {
  const engine = await connected('drafter', options, limits);
  return new RemoteDraftEngine(engine, engine.drafter as DrafterFacts);
}

async function connected(kind: 'target' | 'drafter', options: EngineOptions, limits: RemoteLimits): Promise<Connected> {
  const engine = await connectEngine(options, limits);
  const actual = engine.drafter ? 'drafter' : 'target';
  if (actual === kind) return engine;
  engine.client.close();
  throw startError(`the engine at ${options.address} must run a ${kind}, got a ${actual}`);
}

type Method = typeof EngineService.method.run;
type Request = NonNullable<RequestInit<Method>['kind']>;
type Answer = Response<Method>['kind'];

/**
 * Engine in another process, behind a single stream: the engine executes requests in their order. The stream owns the
 * sequences, so they are lost when it breaks. The engine then counts as dead.
 */
abstract class RemoteEngine extends EngineBase implements Engine {
  private readonly client: Connected['client'];
  private readonly stream: BidiCall<RequestInit<Method>, Response<Method>>;
  private readonly requestMs: number;
  private readonly ended: Promise<void>;
  private prefix: PrefixCacheUsage = { sequences: 0, bytes: 0, lookups: 0, hits: 0, reusedTokens: 0 };

  constructor({ client, info, limits }: Connected) {
    super(info);
    this.client = client;
    this.requestMs = limits.request;
    // All sequences may be closed in one turn of the event loop, with one message for each.
    this.stream = client.run({ sendCapacity: Number.POSITIVE_INFINITY });
    this.ended = this.receive();
  }

  override open(): SequenceId {
    const sequence = super.open();
    this.send({ case: 'open', value: { sequence } });
    return sequence;
  }

  async reusePrefix(sequence: SequenceId, tokens: readonly number[]): Promise<number> {
    checkEmpty(sequence, this.rowsOf);
    const answer = await this.request({ case: 'reusePrefix', value: { sequence, tokens: [...tokens] } });
    if (answer.case !== 'reused' || answer.value.rows > tokens.length) throw mismatch(answer);
    const { rows, cache } = answer.value;
    if (cache) this.prefix = prefixUsage(cache);
    this.recordRows(sequence, rows);
    return rows;
  }

  protected override release(sequence: SequenceId): void {
    this.send({ case: 'close', value: { sequence } });
  }

  prefixCache(): PrefixCacheUsage {
    return this.prefix;
  }

  async dispose(): Promise<void> {
    this.end(new PtpError('unavailable', 'the engine has been stopped'));
    await this.ended;
  }

  protected override end(error: PtpError): void {
    if (this.dead) return;
    super.end(error);
    this.stream.finish();
    this.client.close();
  }

  /** Sends a run of validated slots. */
  protected async answerTo(run: Request, slots: readonly ContextSlot[]): Promise<Answer> {
    const answer = this.request(run);
    this.recordRun(slots);
    try {
      return await answer;
    } catch (error) {
      this.recordFailure(slots);
      throw error;
    }
  }

  private request(kind: Request): Promise<Answer> {
    const { id, answer } = this.begin<Answer>();
    const limit = `the engine has not answered for ${this.requestMs / 1000} s`;
    const timer = setTimeout(() => this.die(new PtpError('unavailable', limit)), this.requestMs);
    try {
      this.send(kind, id);
    } catch (error) {
      this.settle(id, runFailure(error));
    }
    return answer.finally(() => clearTimeout(timer));
  }

  private send(kind: Request, id = 0): void {
    this.stream.send({ id: BigInt(id), kind });
  }

  private async receive(): Promise<void> {
    try {
      for await (const { id, kind } of this.stream) {
        this.settle(Number(id), kind.case === 'error' ? errorOf(kind.value) : kind);
      }
      this.die(new PtpError('unavailable', 'the engine has ended the stream'));
    } catch (cause) {
      this.die(new PtpError('unavailable', 'the connection to the engine is lost', { cause }));
    }
  }
}

class RemoteTargetEngine extends RemoteEngine implements TargetEngine {
  async run(slots: readonly TargetSlot[]): Promise<RunResult<TargetOutput>> {
    checkTargetSlots(slots, this.info, this.rowsOf);
    const answer = await this.answerTo({ case: 'target', value: targetRun(slots) }, slots);
    if (answer.case !== 'target') throw mismatch(answer);
    return targetResult(answer.value, slots, this.info.vocabulary);
  }
}

class RemoteDraftEngine extends RemoteEngine implements DraftEngine {
  readonly checksBlocks: boolean;
  readonly maxBranchLength: number;
  readonly yieldCurve: readonly number[];
  readonly yieldCurveAfterMiss: readonly number[];

  constructor(engine: Connected, drafter: DrafterFacts) {
    super(engine);
    this.checksBlocks = drafter.checksBlocks;
    this.maxBranchLength = drafter.maxBranchLength;
    this.yieldCurve = drafter.yieldCurve;
    this.yieldCurveAfterMiss =
      drafter.yieldCurveAfterMiss.length > 0 ? drafter.yieldCurveAfterMiss : drafter.yieldCurve;
  }

  async run(slots: readonly DraftSlot[]): Promise<RunResult<DraftOutput>> {
    checkDraftSlots(slots, this, this.rowsOf);
    const answer = await this.answerTo({ case: 'draft', value: draftRun(slots) }, slots);
    if (answer.case !== 'draft') throw mismatch(answer);
    return draftResult(answer.value, slots, this.info.vocabulary);
  }
}

function mismatch({ case: kind }: Answer): PtpError {
  return runFailure(`the engine's answer \`${kind}\` does not fit the request`);
}

function prefixUsage({ sequences, bytes, lookups, hits, reusedTokens }: PrefixCacheFacts): PrefixCacheUsage {
  return {
    sequences,
    bytes: Number(bytes),
    lookups: Number(lookups),
    hits: Number(hits),
    reusedTokens: Number(reusedTokens),
  };
}

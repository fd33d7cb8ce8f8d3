import { toPtpError } from '@ptp/protocol/errors';
import type { ObservedRequest, RequestObserver, RequestOutcome } from '../decode/observer.ts';
import type { Draft, DraftCall, Verdict, VerifyCall } from '../decode/ports.ts';
import type { BranchTaken, GenerationRequest, GenerationStep, StepStats } from '../decode/types.ts';

/** Steps of one request that are kept with their times; later ones count only towards the totals. */
export const STEPS_KEPT = 512;

/** One call to a service. Times in microseconds; the start counts from the request's. */
export interface CallRecord {
  readonly service: 'verifier' | 'drafter';
  /** `open` reads the prompt; `redraft` precedes a verify call, `draft` runs concurrently with one. */
  readonly kind: 'open' | 'verify' | 'draft' | 'redraft';
  readonly start: number;
  readonly micros: number;
  /** As the service reports them; 0 if it does not. */
  readonly queueMicros: number;
  readonly runMicros: number;
  /** Sequences in the run. */
  readonly batchSize: number;
  /** Length of the block that was verified, or drafted after. */
  readonly block: number;
  /** Number of branches of a draft. */
  readonly branches?: number;
  /** Code of the error that it ended with; `unavailable` for a draft that did not come. */
  readonly error?: string;
}

export interface StepRecord {
  readonly start: number;
  readonly stats: StepStats;
  /** Committed. */
  readonly tokens: number;
  readonly calls: readonly CallRecord[];
  readonly branch?: BranchTaken | undefined;
}

export type Finish = 'running' | 'stop' | 'length' | 'cancelled' | 'failed';

const NO_TIMES = { queueMicros: 0, runMicros: 0, batchSize: 1, block: 0 };

/** One sequence as /traces shows it: figures only, no text and no token ids. */
export class RequestTrace implements RequestObserver {
  readonly id: string;
  readonly modelId: string;
  readonly request: Omit<GenerationRequest, 'prompt' | 'prediction' | 'stopTokens' | 'adjustments'>;
  readonly promptTokens: number;
  /** Unix time, milliseconds. */
  readonly began = Date.now();
  readonly traceId: string;
  finish: Finish = 'running';
  error: string | undefined;
  /** Duration of the request, once it has ended. */
  micros = 0;
  firstTokenMicros = 0;
  cachedTokens = 0;
  tokens = 0;
  drafted = 0;
  accepted = 0;
  steps = 0;
  /** Calls before the first step. */
  readonly opening: CallRecord[] = [];
  readonly kept: StepRecord[] = [];
  readonly #startedAt: number;
  readonly #onEnd: (trace: RequestTrace) => void;
  /** Send times of calls in flight. */
  readonly #sent = new WeakMap<VerifyCall | DraftCall, number>();
  /** Calls that have ended, with their step's index; a finished step takes those up to its own. */
  #ended: { readonly index: number; readonly record: CallRecord }[] = [];

  constructor(id: string, observed: ObservedRequest, onEnd: (trace: RequestTrace) => void) {
    const { prompt, prediction: _, stopTokens: __, adjustments: ___, ...figures } = observed.request;
    this.id = id;
    this.modelId = observed.model.modelId;
    this.request = figures;
    this.promptTokens = prompt.length;
    this.traceId = (observed.traceparent || figures.traceparent)?.split('-')[1] ?? '';
    this.#startedAt = observed.startedAt;
    this.#onEnd = onEnd;
  }

  /** Microseconds since the request began. */
  at(time = performance.now()): number {
    return Math.round((time - this.#startedAt) * 1000);
  }

  opened(service: CallRecord['service'], { at, error }: { at: number; error?: unknown }): void {
    const failure = error === undefined ? {} : { error: toPtpError(error).code };
    this.opening.push({ service, kind: 'open', ...NO_TIMES, start: 0, micros: this.at(at), ...failure });
  }

  stepSent(call: VerifyCall, at: number): void {
    this.#sent.set(call, at);
  }

  draftSent(call: DraftCall, at: number): void {
    this.#sent.set(call, at);
  }

  verdictReceived(call: VerifyCall, verdict: Verdict | undefined, at: number): void {
    if (!verdict) return;
    const { micros, queueMicros, runMicros, batchSize } = verdict.time;
    this.#record(call, at, { micros, queueMicros, runMicros, batchSize });
  }

  draftReceived(call: DraftCall, draft: Draft, at: number): void {
    const { micros, queueMicros, runMicros, batchSize, branches } = draft;
    this.#record(call, at, { micros, queueMicros, runMicros, batchSize, branches: branches.length });
  }

  callFailed(call: VerifyCall | DraftCall, error: unknown, at: number): void {
    this.#record(call, at, { error: call.kind === 'verify' ? toPtpError(error).code : 'unavailable' });
  }

  stepFinished({ stats, tokens, branch, reusedTokens = 0 }: GenerationStep, at: number): void {
    const now = this.at(at);
    if (this.steps++ === 0) {
      this.firstTokenMicros = now;
      this.cachedTokens = reusedTokens;
    }
    this.tokens += tokens.length;
    this.drafted += stats.drafted;
    this.accepted += stats.accepted;
    if (this.kept.length >= STEPS_KEPT) return;
    const calls = this.#ended.filter(({ index }) => index <= stats.step).map(({ record }) => record);
    this.#ended = this.#ended.filter(({ index }) => index > stats.step);
    this.kept.push({ start: Math.max(0, now - stats.stepMicros), stats, tokens: tokens.length, calls, branch });
  }

  requestFinished({ at, finish, error, isAborted }: RequestOutcome): void {
    this.micros = this.at(at);
    if (error !== undefined) this.error = toPtpError(error).code;
    const failed = this.error !== undefined && this.error !== 'cancelled';
    // the reader stops at a stop string, which is a normal end
    this.finish = failed ? 'failed' : this.error || isAborted ? 'cancelled' : (finish ?? 'stop');
    this.#onEnd(this);
  }

  /** A call sent ahead is in flight only from the previous answer on, later than it was sent. */
  #record(call: VerifyCall | DraftCall, at: number, reported: Partial<CallRecord>): void {
    if (this.kept.length >= STEPS_KEPT) return;
    const sent = this.at(this.#sent.get(call));
    const { micros = this.at(at) - sent } = reported;
    const [service, block] =
      call.kind === 'verify'
        ? (['verifier', call.block.length] as const)
        : (['drafter', call.tokens.length - call.assumed] as const);
    const start = Math.max(sent, this.at(at) - micros);
    const record = { service, kind: call.kind, ...NO_TIMES, ...reported, start, micros, block };
    if (call.kind === 'redraft' && this.steps === 0) this.opening.push(record);
    else this.#ended.push({ index: call.step?.index ?? 0, record });
  }
}

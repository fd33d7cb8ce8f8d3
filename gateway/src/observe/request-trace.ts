import { toPtpError } from '@ptp/protocol/errors';
import type { StepUnderWay } from '../decode/ports.ts';
import type { GenerationRequest, GenerationStep, StepStats } from '../decode/types.ts';

/** Steps of one request that are kept with their times; of later ones only the totals are. */
export const STEPS_KEPT = 512;

/** One call to a service. Times in microseconds, the start from the request's own. */
export interface CallRecord {
  readonly service: 'verifier' | 'drafter';
  /** `open`: reading the prompt. `redraft`: before the verify, and not beside it. */
  readonly kind: 'open' | 'verify' | 'draft' | 'redraft';
  readonly start: number;
  readonly micros: number;
  /** What the service said of it; 0 where it says nothing. */
  readonly queueMicros: number;
  readonly runMicros: number;
  /** Sequences in the run. */
  readonly batchSize: number;
  /** Length of the block that was verified, or drafted after. */
  readonly block: number;
  /** Of a draft. */
  readonly branches?: number;
  /** Code of the error that it ended with; `unavailable` for a draft that did not come. */
  readonly error?: string;
}

/** Which of a draft's branches became the next block. */
export interface BranchTaken {
  readonly accepted: number;
  /** Tokens after the target's own. */
  readonly length: number;
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

/** One sequence as /traces shows it: figures only, no text and no token ids. */
export class RequestTrace {
  readonly id: string;
  readonly modelId: string;
  readonly request: Omit<GenerationRequest, 'prompt' | 'prediction' | 'stopTokens' | 'adjustments'>;
  readonly promptTokens: number;
  /** Unix time, milliseconds. */
  readonly began = Date.now();
  readonly #origin = performance.now();
  traceId = '';
  finish: Finish = 'running';
  error: string | undefined;
  /** Of the whole request, once it has ended. */
  micros = 0;
  firstTokenMicros = 0;
  cachedTokens = 0;
  tokens = 0;
  drafted = 0;
  accepted = 0;
  steps = 0;
  /** Before the first step. */
  readonly opening: CallRecord[] = [];
  readonly kept: StepRecord[] = [];
  /** Calls that have ended of steps under way, steps that the verifier has answered, in order, and the branches that will follow. */
  #calls: { readonly call: CallRecord; readonly step: StepUnderWay | undefined }[] = [];
  readonly #verified: StepUnderWay[] = [];
  readonly #branches = new WeakMap<StepUnderWay, BranchTaken>();
  readonly #dropped = new WeakSet<StepUnderWay>();

  constructor(id: string, modelId: string, request: GenerationRequest) {
    this.id = id;
    this.modelId = modelId;
    const { prompt, prediction: _, stopTokens: __, adjustments: ___, ...figures } = request;
    this.request = figures;
    this.promptTokens = prompt.length;
    this.traceId = request.traceparent?.split('-')[1] ?? '';
  }

  /** Microseconds since the request began. @param at a `performance.now()` value */
  at(at = performance.now()): number {
    return Math.round((at - this.#origin) * 1000);
  }

  /** @param step that the call was made for */
  call(call: CallRecord, step?: StepUnderWay): void {
    if (this.kept.length >= STEPS_KEPT) return;
    if (call.kind === 'open' || (this.steps === 0 && call.kind === 'redraft')) this.opening.push(call);
    else this.#calls.push({ call, step });
  }

  branch(taken: BranchTaken, step: StepUnderWay): void {
    this.#branches.set(step, taken);
  }

  /** The verifier has answered a step. */
  verified(step: StepUnderWay): void {
    this.#verified.push(step);
  }

  /** A step that had been sent for an outcome which did not come: its calls are shown with the step in which they end. */
  dropped(step: StepUnderWay): void {
    this.#dropped.add(step);
  }

  /** A step has just ended. */
  step({ stats, tokens, reusedTokens = 0 }: GenerationStep): void {
    const now = this.at();
    if (this.steps++ === 0) {
      this.firstTokenMicros = now;
      this.cachedTokens = reusedTokens;
    }
    this.tokens += tokens.length;
    this.drafted += stats.drafted;
    this.accepted += stats.accepted;
    const step = this.#verified.shift();
    if (this.kept.length >= STEPS_KEPT) return;
    const isOf = (other: StepUnderWay | undefined) =>
      other === step || (other !== undefined && this.#dropped.has(other));
    const calls = this.#calls.filter((each) => isOf(each.step)).map(({ call }) => call);
    this.#calls = this.#calls.filter((each) => !isOf(each.step));
    const branch = step && this.#branches.get(step);
    const start = Math.max(0, now - stats.stepMicros);
    this.kept.push({ start, stats, tokens: tokens.length, calls, branch });
  }

  end(finish: Finish, error?: unknown): void {
    this.micros = this.at();
    this.finish = finish;
    if (error === undefined) return;
    this.error = toPtpError(error).code;
    if (this.error === 'cancelled') this.finish = 'cancelled';
  }
}

import { toPtpError } from '@ptp/protocol/errors';
import type { Call, CallResult, ObservedRequest, RequestObserver, RequestOutcome } from '../decode/observer.ts';
import { stepFigures } from '../decode/step-figures.ts';
import type { BranchTaken, GenerationStep, StepStats } from '../decode/types.ts';

/** Maximum number of steps of one request that are kept. Later steps count only towards the totals. */
export const STEPS_KEPT = 512;

/**
 * A call to a service, as /traces shows it. Times are in microseconds, and `start_us` counts from the request's start.
 */
export interface CallRecord {
  readonly service: 'verifier' | 'drafter';
  /**
   * Kind of the call: `open` processes the prompt, `redraft` precedes a verify call, and `draft` runs concurrently with
   * one.
   */
  readonly kind: 'open' | 'verify' | 'draft' | 'redraft';
  readonly start_us: number;
  readonly us: number;
  /** Times that the service reports, or 0 if it reports none. */
  readonly queue_us: number;
  readonly run_us: number;
  /** Number of sequences in the engine run. */
  readonly batch_size: number;
  /** Length of the block that the call verifies or drafts after. */
  readonly block: number;
  /** Number of branches of a draft. */
  readonly branches?: number;
  /** Error code if the call failed. Always `unavailable` for a draft. */
  readonly error?: string;
}

/** A finished step and its calls. Times are in microseconds. */
export interface StepRecord {
  readonly start: number;
  readonly stats: StepStats;
  /** Number of committed tokens. */
  readonly tokens: number;
  readonly calls: readonly CallRecord[];
  readonly branch?: BranchTaken | undefined;
}

export type Finish = 'running' | 'stop' | 'length' | 'cancelled' | 'failed';

/** One sequence as /traces shows it. Contains only figures, neither text nor token ids. */
export class RequestTrace implements RequestObserver {
  readonly id: string;
  /** Start of the request as Unix time in milliseconds. */
  readonly began = Date.now();
  finish: Finish = 'running';
  /** Duration of the request in microseconds once it has ended. */
  micros = 0;
  /** Calls before the first step. */
  readonly opening: CallRecord[] = [];
  /** The first STEPS_KEPT steps. */
  readonly kept: StepRecord[] = [];
  readonly #request: ReturnType<typeof requestFigures>;
  readonly #totals = { cached_tokens: 0, completion_tokens: 0, steps: 0, drafted: 0, accepted: 0, first_token_us: 0 };
  #error: string | null = null;
  readonly #startedAt: number;
  /** Time of each service's last answer, in microseconds. */
  readonly #answeredAt = { verifier: 0, drafter: 0 };
  readonly #onEnd: (trace: RequestTrace) => void;
  /** Send times of calls in flight. */
  readonly #sent = new WeakMap<Call, number>();
  /** Ended calls with the index of their step. A finished step takes the calls up to its own index. */
  #ended: { readonly index: number; readonly record: CallRecord }[] = [];

  constructor(id: string, observed: ObservedRequest, onEnd: (trace: RequestTrace) => void) {
    this.id = id;
    this.#request = requestFigures(observed);
    this.#startedAt = observed.startedAt;
    this.#onEnd = onEnd;
  }

  /** Summary for /traces.json. */
  summary() {
    const { first_token_us: first, ...totals } = this.#totals;
    const { completion_tokens: tokens, steps } = totals;
    const duration = this.duration();
    return {
      id: this.id,
      began: new Date(this.began).toISOString(),
      ...this.#request,
      ...totals,
      tokens_per_step: steps > 0 ? Number((tokens / steps).toFixed(3)) : null,
      duration_us: duration,
      first_token_us: first || null,
      us_per_token: tokens > 0 ? Math.round(duration / tokens) : null,
      finish: this.finish,
      error: this.#error,
    };
  }

  /** Summary, steps and calls for /traces/{id}.json. */
  detail() {
    return {
      ...this.summary(),
      opening: this.opening,
      steps_left_out: this.#totals.steps - this.kept.length,
      step_list: this.kept.map(({ start, stats, tokens, calls, branch }) => {
        const figures = { ...stepFigures(stats), start_us: start, step_us: stats.stepMicros };
        return { ...figures, tokens, branch_taken: branch ?? null, calls };
      }),
    };
  }

  /** Returns the duration of the request in microseconds, until now if it has not ended. */
  duration(): number {
    return this.finish === 'running' ? this.#at(performance.now()) : this.micros;
  }

  opened(service: CallRecord['service'], { at, error }: { at: number; error?: unknown }): void {
    const times = { start_us: 0, us: this.#at(at), queue_us: 0, run_us: 0, batch_size: 1 };
    const failure = error === undefined ? {} : { error: toPtpError(error).code };
    this.opening.push({ service, kind: 'open', ...times, block: 0, ...failure });
  }

  callSent(call: Call, at: number): void {
    this.#sent.set(call, at);
  }

  callEnded(call: Call, { verdict, draft, error }: CallResult, at: number): void {
    const time = verdict?.time ?? draft;
    const isVerify = call.kind === 'verify';
    const service = isVerify ? 'verifier' : 'drafter';
    const before = this.#answeredAt[service];
    this.#answeredAt[service] = this.#at(at);
    const isSkipped = !time && error === undefined;
    if (isSkipped || this.kept.length >= STEPS_KEPT) return;
    const [sent, now] = [this.#at(this.#sent.get(call) ?? at), this.#at(at)];
    const us = time?.micros ?? now - sent;
    const record: CallRecord = {
      service,
      kind: call.kind,
      // A call that was sent ahead counts as in flight only from the previous answer on.
      start_us: Math.max(sent, before),
      us,
      queue_us: time?.queueMicros ?? 0,
      run_us: time?.runMicros ?? 0,
      batch_size: time?.batchSize ?? 1,
      block: isVerify ? call.block.length : call.tokens.length - call.assumed,
      ...(draft && { branches: draft.branches.length }),
      ...(error !== undefined && { error: isVerify ? toPtpError(error).code : 'unavailable' }),
    };
    if (call.kind === 'redraft' && this.#totals.steps === 0) this.opening.push(record);
    else this.#ended.push({ index: call.step?.index ?? 0, record });
  }

  stepFinished({ stats, tokens, branch, reusedTokens = 0 }: GenerationStep, at: number): void {
    const now = this.#at(at);
    const totals = this.#totals;
    if (totals.steps++ === 0) {
      totals.first_token_us = now;
      totals.cached_tokens = reusedTokens;
    }
    totals.completion_tokens += tokens.length;
    totals.drafted += stats.drafted;
    totals.accepted += stats.accepted;
    if (this.kept.length >= STEPS_KEPT) return;
    const calls = this.#ended.filter(({ index }) => index <= stats.step).map(({ record }) => record);
    this.#ended = this.#ended.filter(({ index }) => index > stats.step);
    this.kept.push({ start: Math.max(0, now - stats.stepMicros), stats, tokens: tokens.length, calls, branch });
  }

  requestFinished({ at, finish, error, isAborted }: RequestOutcome): void {
    this.micros = this.#at(at);
    this.#error = error === undefined ? null : toPtpError(error).code;
    const failed = this.#error !== null && this.#error !== 'cancelled';
    // A reader that stops at a stop string is a normal end.
    this.finish = failed ? 'failed' : this.#error || isAborted ? 'cancelled' : (finish ?? 'stop');
    this.#onEnd(this);
  }

  /** Converts a time to microseconds since the start of the request. */
  #at(time: number): number {
    return Math.round((time - this.#startedAt) * 1000);
  }
}

/** Returns the figures of a request that are known from its start. */
function requestFigures({ request, model, traceparent }: ObservedRequest) {
  const { temperature, topK, topP, minP = 0 } = request.sampling;
  return {
    request_id: request.requestId ?? null,
    trace_id: (traceparent || request.traceparent)?.split('-')[1] || null,
    model: model.modelId,
    operation: request.operation ?? 'text_completion',
    sampling: { temperature, top_k: topK, top_p: topP, min_p: minP },
    seed: String(request.seed),
    max_tokens: request.maxTokens,
    drafting: request.drafting !== false,
    prompt_tokens: request.prompt.length,
  };
}

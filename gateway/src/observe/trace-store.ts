import type { ObservedRequest, StepObserver } from '../decode/observer.ts';
import { RequestTrace } from './request-trace.ts';

/**
 * Numbers of traces that are kept longer than others: traces of the last failed requests, and of the slowest requests
 * in the last hour.
 */
const FAILED_KEPT = 10;
const SLOWEST_KEPT = 10;
const HOUR = 3_600_000;

/** Traces of recent requests, in memory: at most `kept` + 20 traces of at most STEPS_KEPT steps each. */
export class TraceStore implements StepObserver {
  readonly #kept: number;
  /** Recent traces, keyed by id, in the order of their start. */
  readonly #recent = new Map<string, RequestTrace>();
  #failed: RequestTrace[] = [];
  #slowest: RequestTrace[] = [];
  #count = 0;

  /** @param kept maximum number of recent requests, including those in progress */
  constructor(kept: number) {
    this.#kept = kept;
  }

  requestStarted(request: ObservedRequest): RequestTrace {
    const trace = new RequestTrace(String(++this.#count), request, (ended) => this.#ended(ended));
    this.#recent.set(trace.id, trace);
    if (this.#recent.size > this.#kept) {
      const [oldest] = this.#recent.keys();
      if (oldest !== undefined) this.#recent.delete(oldest);
    }
    return trace;
  }

  #ended(trace: RequestTrace): void {
    if (trace.finish === 'failed') this.#failed = [trace, ...this.#failed].slice(0, FAILED_KEPT);
    const since = Date.now() - HOUR;
    const old = this.#slowest.filter(({ began }) => began >= since);
    this.#slowest = [...old, trace].sort((a, b) => b.micros - a.micros).slice(0, SLOWEST_KEPT);
  }

  /** Returns all traces, the newest first. */
  list(): RequestTrace[] {
    const all = new Map([...this.#failed, ...this.#slowest].map((trace) => [trace.id, trace]));
    for (const [id, trace] of this.#recent) all.set(id, trace);
    return [...all.values()].sort((a, b) => Number(b.id) - Number(a.id));
  }

  get(id: string): RequestTrace | undefined {
    return this.#recent.get(id) ?? [...this.#failed, ...this.#slowest].find((trace) => trace.id === id);
  }
}

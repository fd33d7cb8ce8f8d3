import { isSpanContextValid, type Span, TraceFlags } from '@opentelemetry/api';
import { toPtpError } from '@ptp/core/errors.ts';
import { attribute } from '@ptp/core/telemetry/spans.ts';
import { branchThatFits } from '../loop/branch.ts';
import type { GenerationRequest, Health, PairFacts } from '../loop/generation.ts';
import type { Draft, DraftStream, Opened, Streams, Verdict, VerifyStream } from '../services/streams.ts';
import type { CallRecord, RequestTrace } from './request-trace.ts';

/** Streams that note what each call took, in the request's trace if it has one, and in its spans which branch came true. */
export class RecordedStreams implements Streams {
  readonly #inner: Streams;
  readonly #traceOf: (request: GenerationRequest) => RequestTrace | undefined;
  /** What the two streams of a request know of its step. */
  readonly #steps = new WeakMap<GenerationRequest, StepUnderWay>();

  constructor(inner: Streams, traceOf: (request: GenerationRequest) => RequestTrace | undefined = () => undefined) {
    this.#inner = inner;
    this.#traceOf = traceOf;
  }

  get facts(): PairFacts {
    return this.#inner.facts;
  }

  health(): Health {
    return this.#inner.health();
  }

  verify(request: GenerationRequest, signal: AbortSignal, span: Span): VerifyStream {
    const trace = this.#traceOf(request);
    const context = span.spanContext();
    const sampled = isSpanContextValid(context) && (context.traceFlags & TraceFlags.SAMPLED) !== 0;
    if (trace && sampled) trace.traceId = context.traceId;
    return new RecordedVerifyStream(this.#inner.verify(request, signal, span), trace, this.#stepOf(request));
  }

  draft(request: GenerationRequest, signal: AbortSignal, span: Span): DraftStream {
    const inner = this.#inner.draft(request, signal, span);
    return new RecordedDraftStream(inner, this.#traceOf(request), this.#stepOf(request));
  }

  #stepOf(request: GenerationRequest): StepUnderWay {
    const known = this.#steps.get(request) ?? { number: 0, span: undefined, verdict: undefined, draft: undefined };
    this.#steps.set(request, known);
    return known;
  }
}

/** The step whose block is being verified: its span, and the two answers once they are there. */
interface StepUnderWay {
  /** Verify calls so far. */
  number: number;
  span: Span | undefined;
  verdict: Verdict | undefined;
  draft: Draft | undefined;
}

/** Once both answers are there, it is known which branch came true. */
function settle({ span, verdict, draft }: StepUnderWay, trace: RequestTrace | undefined): void {
  if (!verdict || !draft) return;
  const branch = branchThatFits(draft.branches, verdict.accepted, verdict.nextToken);
  if (!branch) return;
  const { accepted } = branch;
  const length = branch.tokens.length - 1;
  trace?.branch({ accepted, length });
  span?.setAttributes({ [attribute.branchTaken]: accepted, [attribute.branchLength]: length });
}

const NO_TIMES = { queueMicros: 0, runMicros: 0, batchSize: 1, block: 0 };

/** Notes when a call began and how long it took. */
class Stopwatch {
  readonly #trace: RequestTrace;
  readonly #start: number;
  readonly #call: Pick<CallRecord, 'service' | 'kind'>;

  constructor(trace: RequestTrace, service: CallRecord['service'], kind: CallRecord['kind']) {
    this.#trace = trace;
    this.#start = trace.at();
    this.#call = { service, kind };
  }

  stop(told: Partial<CallRecord>): void {
    const micros = this.#trace.at() - this.#start;
    this.#trace.call({ ...this.#call, ...NO_TIMES, start: this.#start, micros, ...told });
  }

  failed(error: unknown, told: Partial<CallRecord> = {}): void {
    this.stop({ ...told, error: toPtpError(error).code });
  }
}

class RecordedVerifyStream implements VerifyStream {
  readonly #inner: VerifyStream;
  readonly #trace: RequestTrace | undefined;
  readonly #now: StepUnderWay;

  constructor(inner: VerifyStream, trace: RequestTrace | undefined, now: StepUnderWay) {
    this.#inner = inner;
    this.#trace = trace;
    this.#now = now;
    const watch = trace && new Stopwatch(trace, 'verifier', 'open');
    inner.opened().then(
      () => watch?.stop({}),
      (error) => watch?.failed(error),
    );
  }

  opened(): Promise<Opened> {
    return this.#inner.opened();
  }

  async step(draft: readonly number[], allowed: readonly Uint8Array[], span: Span): Promise<Verdict> {
    Object.assign(this.#now, { number: this.#now.number + 1, span, verdict: undefined, draft: undefined });
    const watch = this.#trace && new Stopwatch(this.#trace, 'verifier', 'verify');
    try {
      const verdict = await this.#inner.step(draft, allowed, span);
      const { queueMicros, runMicros, batchSize } = verdict.time;
      watch?.stop({ queueMicros, runMicros, batchSize, block: draft.length });
      this.#now.verdict = verdict;
      settle(this.#now, this.#trace);
      return verdict;
    } catch (error) {
      watch?.failed(error, { block: draft.length });
      throw error;
    }
  }

  close(): void {
    this.#inner.close();
  }
}

class RecordedDraftStream implements DraftStream {
  readonly #inner: DraftStream;
  readonly #trace: RequestTrace | undefined;
  readonly #now: StepUnderWay;
  readonly #opening: Stopwatch | undefined;

  constructor(inner: DraftStream, trace: RequestTrace | undefined, now: StepUnderWay) {
    this.#inner = inner;
    this.#trace = trace;
    this.#now = now;
    this.#opening = trace && new Stopwatch(trace, 'drafter', 'open');
  }

  async opened(verifierOpened: Promise<unknown>): Promise<void> {
    await this.#inner.opened(verifierOpened);
    this.#opening?.stop(this.#inner.available() ? {} : { error: 'unavailable' });
  }

  available(): boolean {
    return this.#inner.available();
  }

  commit(tokens: readonly number[]): void {
    this.#inner.commit(tokens);
  }

  async step(...[block, plan, span]: Parameters<DraftStream['step']>): Promise<Draft | undefined> {
    const { number, verdict } = this.#now;
    const beside = number > 0 && !verdict;
    const asked = this.#inner.available();
    const watch = this.#trace && asked && new Stopwatch(this.#trace, 'drafter', beside ? 'draft' : 'redraft');
    const draft = await this.#inner.step(block, plan, span);
    const told = { block: block.tokens.length };
    if (watch && !draft) watch.stop({ ...told, error: 'unavailable' });
    if (!draft) return undefined;
    const { queueMicros, runMicros, batchSize, branches } = draft;
    if (watch) watch.stop({ ...told, queueMicros, runMicros, batchSize, branches: branches.length });
    if (beside && this.#now.number === number) {
      this.#now.draft = draft;
      settle(this.#now, this.#trace);
    }
    return draft;
  }

  close(): void {
    this.#inner.close();
  }
}

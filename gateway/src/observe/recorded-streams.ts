import { isSpanContextValid, type Span, TraceFlags } from '@opentelemetry/api';
import { toPtpError } from '@ptp/protocol/errors';
import { attribute } from '@ptp/service-kit/spans';
import { branchThatFits } from '../decode/branch.ts';
import type {
  Draft,
  DraftStream,
  Expected,
  Opened,
  Proposal,
  StepUnderWay,
  Streams,
  Verdict,
  VerifyStream,
} from '../decode/ports.ts';
import type { GenerationRequest, Health, ModelInfo } from '../decode/types.ts';
import type { CallRecord, RequestTrace } from './request-trace.ts';

/** Streams that note what each call took, in the request's trace if it has one, and in its spans which branch came true. */
export class RecordedStreams implements Streams {
  readonly #inner: Streams;
  readonly #traceOf: (request: GenerationRequest) => RequestTrace | undefined;
  /** What is known of each step. */
  readonly #steps = new WeakMap<StepUnderWay, Answers>();

  constructor(inner: Streams, traceOf: (request: GenerationRequest) => RequestTrace | undefined = () => undefined) {
    this.#inner = inner;
    this.#traceOf = traceOf;
  }

  get model(): ModelInfo {
    return this.#inner.model;
  }

  health(): Health {
    return this.#inner.health();
  }

  verify(request: GenerationRequest, signal: AbortSignal, span: Span): VerifyStream {
    const trace = this.#traceOf(request);
    const context = span.spanContext();
    const sampled = isSpanContextValid(context) && (context.traceFlags & TraceFlags.SAMPLED) !== 0;
    if (trace && sampled) trace.traceId = context.traceId;
    return new RecordedVerifyStream(this.#inner.verify(request, signal, span), trace, this.#answersTo);
  }

  draft(request: GenerationRequest, signal: AbortSignal, span: Span): DraftStream {
    const inner = this.#inner.draft(request, signal, span);
    return new RecordedDraftStream(inner, this.#traceOf(request), this.#answersTo);
  }

  readonly #answersTo = (step: StepUnderWay): Answers => {
    const known = this.#steps.get(step) ?? { verifying: false };
    this.#steps.set(step, known);
    return known;
  };
}

/** The two answers to a step's calls, once they are there. */
interface Answers {
  /** Whether its block has been sent. */
  verifying: boolean;
  verdict?: Verdict;
  draft?: Draft;
}

/** Once both answers are there, it is known which branch came true. */
function settle(step: StepUnderWay, { verdict, draft }: Answers, trace: RequestTrace | undefined): void {
  if (!verdict || !draft) return;
  const branch = branchThatFits(draft.branches, verdict.accepted, verdict.nextToken);
  if (!branch) return;
  const { accepted } = branch;
  const length = branch.tokens.length - 1;
  trace?.branch({ accepted, length }, step);
  step.span.setAttributes({ [attribute.branchTaken]: accepted, [attribute.branchLength]: length });
}

const NO_TIMES = { queueMicros: 0, runMicros: 0, batchSize: 1, block: 0 };

/** Notes when a call began and how long it took. */
class Stopwatch {
  readonly #trace: RequestTrace;
  readonly #start: number;
  readonly #call: Pick<CallRecord, 'service' | 'kind'>;
  readonly #step: StepUnderWay | undefined;

  constructor(trace: RequestTrace, service: CallRecord['service'], kind: CallRecord['kind'], step?: StepUnderWay) {
    this.#trace = trace;
    this.#start = trace.at();
    this.#call = { service, kind };
    this.#step = step;
  }

  /** @param micros that the call has been under way, where that is not since the watch was made */
  stop(told: Partial<CallRecord>, micros = this.#trace.at() - this.#start): void {
    const start = Math.max(this.#start, this.#trace.at() - micros);
    this.#trace.call({ ...this.#call, ...NO_TIMES, start, micros, ...told }, this.#step);
  }

  failed(error: unknown, told: Partial<CallRecord> = {}): void {
    this.stop({ ...told, error: toPtpError(error).code });
  }
}

class RecordedVerifyStream implements VerifyStream {
  readonly #inner: VerifyStream;
  readonly #trace: RequestTrace | undefined;
  readonly #answersTo: (step: StepUnderWay) => Answers;

  constructor(inner: VerifyStream, trace: RequestTrace | undefined, answersTo: (step: StepUnderWay) => Answers) {
    this.#inner = inner;
    this.#trace = trace;
    this.#answersTo = answersTo;
    const watch = trace && new Stopwatch(trace, 'verifier', 'open');
    inner.opened().then(
      () => watch?.stop({}),
      (error) => watch?.failed(error),
    );
  }

  opened(): Promise<Opened> {
    return this.#inner.opened();
  }

  step(proposal: Proposal): Promise<Verdict> {
    return this.#watched(proposal, false, () => this.#inner.step(proposal));
  }

  stepAfter(expected: Expected, proposal: Proposal): Promise<Verdict | undefined> {
    return this.#watched(proposal, true, () => this.#inner.stepAfter(expected, proposal));
  }

  async #watched<V extends Verdict | undefined>(
    { step, block }: Proposal,
    ahead: boolean,
    call: () => Promise<V>,
  ): Promise<V> {
    const answers = this.#answersTo(step);
    answers.verifying = true;
    const watch = this.#trace && new Stopwatch(this.#trace, 'verifier', 'verify', step);
    try {
      const verdict = await call();
      if (!verdict) {
        this.#trace?.dropped(step);
        return verdict;
      }
      const { micros, queueMicros, runMicros, batchSize } = verdict.time;
      const told = { queueMicros, runMicros, batchSize, block: block.length };
      // what was sent ahead is under way when the step before it is done
      watch?.stop(told, ahead ? micros : undefined);
      this.#trace?.verified(step);
      answers.verdict = verdict;
      settle(step, answers, this.#trace);
      return verdict;
    } catch (error) {
      watch?.failed(error, { block: block.length });
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
  readonly #answersTo: (step: StepUnderWay) => Answers;
  readonly #opening: Stopwatch | undefined;

  constructor(inner: DraftStream, trace: RequestTrace | undefined, answersTo: (step: StepUnderWay) => Answers) {
    this.#inner = inner;
    this.#trace = trace;
    this.#answersTo = answersTo;
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

  async step(...[after, plan, step]: Parameters<DraftStream['step']>): Promise<Draft | undefined> {
    const answers = this.#answersTo(step);
    const beside = answers.verifying;
    const asked = this.#inner.available();
    const watch = this.#trace && asked && new Stopwatch(this.#trace, 'drafter', beside ? 'draft' : 'redraft', step);
    const draft = await this.#inner.step(after, plan, step);
    const told = { block: after.tokens.length - after.assumed };
    if (watch && !draft) watch.stop({ ...told, error: 'unavailable' });
    if (!draft) return undefined;
    const { micros, queueMicros, runMicros, batchSize, branches } = draft;
    if (watch) watch.stop({ ...told, queueMicros, runMicros, batchSize, branches: branches.length }, micros);
    if (beside) {
      answers.draft = draft;
      settle(step, answers, this.#trace);
    }
    return draft;
  }

  close(): void {
    this.#inner.close();
  }
}

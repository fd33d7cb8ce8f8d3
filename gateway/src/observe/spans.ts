import { type Span, SpanKind } from '@opentelemetry/api';
import {
  attribute,
  contextFrom,
  endSpan,
  newTrace,
  type Parent,
  span,
  timingAttributes,
  traceparentOf,
} from '@ptp/service-kit/spans';
import type { CallTime } from '../decode/cost-model.ts';
import type {
  Call,
  CallResult,
  ObservedRequest,
  RequestObserver,
  RequestOutcome,
  StepObserver,
} from '../decode/observer.ts';
import type { StepRef } from '../decode/ports.ts';
import type { GenerationStep } from '../decode/types.ts';

/** Decodes token ids to text. */
type Decode = (tokens: readonly number[]) => string;

/**
 * Records a span for each request, each of its steps, and each call of a step. The span of a request follows
 * OpenTelemetry's conventions for generative AI:
 * https://github.com/open-telemetry/semantic-conventions-genai/blob/main/docs/gen-ai/gen-ai-spans.md
 *
 * @param decode function that decodes tokens. If given, the spans of requests contain the prompt and the answer as text
 */
export function spanObserver(decode?: Decode): StepObserver {
  return {
    requestStarted(observed) {
      const { request, model } = observed;
      const root = span(`${request.operation ?? 'text_completion'} ${model.modelId}`, {
        parent: contextFrom(request.traceparent, newTrace),
        kind: SpanKind.SERVER,
        attributes: requestAttributes(observed),
      });
      observed.traceparent = traceparentOf(root);
      return root.isRecording() ? new RequestSpans(root, observed, decode) : {};
    },
  };
}

const CAPTURE_SETTING = 'OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT';

/**
 * Returns true if spans may contain text, because OpenTelemetry's setting is `true`, `SPAN_ONLY` or `SPAN_AND_EVENT`.
 */
export function capturesContent(env: NodeJS.ProcessEnv): boolean {
  return ['true', 'span_only', 'span_and_event'].includes(env[CAPTURE_SETTING]?.trim().toLowerCase() ?? '');
}

class RequestSpans implements RequestObserver {
  readonly #root: Span;
  readonly #request: ObservedRequest;
  readonly #decode: Decode | undefined;
  /** Spans of open steps, by their index in the request. */
  readonly #steps = new Map<number, Span>();
  readonly #calls = new Map<Call, Span>();
  /** Tokens of the answer, kept only to be captured as text. */
  readonly #answer: number[] = [];

  constructor(root: Span, request: ObservedRequest, decode: Decode | undefined) {
    this.#root = root;
    this.#request = request;
    this.#decode = decode;
    if (decode) root.setAttribute(attribute.inputMessages, message('user', decode(request.request.prompt)));
  }

  opened(_: 'verifier' | 'drafter', { reusedTokens }: { reusedTokens?: number }): void {
    if (reusedTokens !== undefined) this.#root.setAttribute(attribute.cachedTokens, reusedTokens);
  }

  callSent(call: Call, startTime: number): void {
    const started = span(`ptp.${call.kind === 'verify' ? 'verify' : 'draft'}`, {
      parent: this.#parentOf(call.step, startTime),
      kind: SpanKind.CLIENT,
      startTime,
      attributes: {
        ...(call.step && { [attribute.step]: call.step.index }),
        ...(call.kind === 'verify'
          ? { [attribute.draftLength]: call.block.length }
          : { 'ptp.block.length': call.tokens.length - call.assumed }),
      },
    });
    call.traceparent = traceparentOf(started);
    this.#calls.set(call, started);
  }

  callEnded(call: Call, { verdict, draft, error }: CallResult, endTime: number): void {
    const ended = this.#calls.get(call);
    this.#calls.delete(call);
    if (!ended) return;
    const time = verdict?.time ?? draft;
    const attributes = {
      ...(verdict && { [attribute.accepted]: verdict.accepted }),
      ...(draft && { [attribute.branches]: draft.branches.length }),
      ...(time ? timings(time) : error === undefined && { [attribute.skipped]: true }),
    };
    endSpan(ended, { endTime, attributes, ...(error !== undefined && { error }) });
  }

  stepDropped({ index }: StepRef): void {
    this.#endStep(index, { attributes: { [attribute.skipped]: true } });
  }

  stepFinished({ tokens, stats, branch }: GenerationStep, at: number): void {
    if (this.#decode) this.#answer.push(...tokens);
    const taken = branch && { [attribute.branchTaken]: branch.accepted, [attribute.branchLength]: branch.length };
    this.#endStep(stats.step, {
      endTime: at,
      attributes: {
        [attribute.draftLength]: stats.drafted,
        [attribute.accepted]: stats.accepted,
        [attribute.overlap]: stats.draftMicros > 0,
        'ptp.mode': stats.mode,
        'ptp.mode.reason': stats.reason,
        'ptp.draft.source': stats.source,
        'ptp.draft.offered': stats.offered,
        'ptp.draft.budget': stats.budget,
        'ptp.redraft': stats.redraftMicros > 0,
        'ptp.step_us': stats.stepMicros,
        'ptp.ahead_us': stats.aheadMicros,
        ...taken,
      },
    });
  }

  requestFinished({ at, finish, error, tokens }: RequestOutcome): void {
    // The first open step failed. The steps after it were sent ahead.
    const [failed] = error === undefined ? [] : [...this.#steps.keys()].sort((a, b) => a - b);
    for (const index of [...this.#steps.keys()]) {
      this.#endStep(index, index === failed ? { error } : { attributes: { [attribute.skipped]: true } });
    }
    if (this.#decode) {
      // This is the full text. The text that the client receives may be cut at a stop string.
      const finish_reason = finish ?? (error === undefined ? 'stop' : 'error');
      const answer = message('assistant', this.#decode(this.#answer), { finish_reason });
      this.#root.setAttribute(attribute.outputMessages, answer);
    }
    endSpan(this.#root, {
      endTime: at,
      ...(error !== undefined && { error }),
      attributes: {
        [attribute.inputTokens]: this.#request.request.prompt.length,
        [attribute.outputTokens]: tokens,
        ...(finish && { [attribute.finishReasons]: [finish] }),
      },
    });
  }

  /** Returns the step's span, which starts with its first call. For the first draft, returns the request's span. */
  #parentOf(step: StepRef | undefined, startTime: number): Parent {
    if (!step) return this.#root;
    const known = this.#steps.get(step.index);
    if (known) return known;
    const attributes = { [attribute.step]: step.index };
    const started = span('ptp.step', { parent: this.#root, startTime, attributes });
    step.traceparent = traceparentOf(started);
    this.#steps.set(step.index, started);
    return started;
  }

  #endStep(index: number, outcome: Parameters<typeof endSpan>[1]): void {
    const ended = this.#steps.get(index);
    this.#steps.delete(index);
    if (ended) endSpan(ended, outcome);
  }
}

function requestAttributes({ request, model }: ObservedRequest) {
  const { sampling, maxTokens, seed, operation = 'text_completion', requestId, stream, adjustments } = request;
  return {
    [attribute.operation]: operation,
    [attribute.provider]: 'ptp',
    [attribute.outputType]: 'text',
    [attribute.requestModel]: model.modelId,
    [attribute.responseModel]: model.modelId,
    ...(requestId !== undefined && { 'ptp.request.id': requestId }),
    ...(stream && { [attribute.stream]: true }),
    ...(adjustments && {
      [attribute.frequencyPenalty]: adjustments.frequencyPenalty,
      [attribute.presencePenalty]: adjustments.presencePenalty,
    }),
    [attribute.maxTokens]: maxTokens,
    [attribute.temperature]: sampling.temperature,
    [attribute.topP]: sampling.topP,
    [attribute.topK]: sampling.topK,
    // The conventions require an integer, which JavaScript represents exactly only up to 2^53.
    ...(seed <= Number.MAX_SAFE_INTEGER ? { [attribute.seed]: Number(seed) } : { 'ptp.seed': String(seed) }),
  };
}

function timings({ queueMicros, runMicros, batchSize }: CallTime) {
  return timingAttributes({ queueUs: queueMicros, runUs: runMicros, batchSize });
}

function message(role: 'user' | 'assistant', content: string, more: object = {}): string {
  return JSON.stringify([{ role, parts: [{ type: 'text', content }], ...more }]);
}

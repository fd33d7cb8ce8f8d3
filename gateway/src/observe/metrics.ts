import { toPtpError } from '@ptp/protocol/errors';
import { SECONDS } from '@ptp/service-kit/metrics';
import { Counter, Gauge, Histogram, type Registry } from 'prom-client';
import { REPORTED_REJECTIONS } from '../access/admission.ts';
import type {
  Call,
  CallResult,
  ObservedRequest,
  RequestObserver,
  RequestOutcome,
  StepObserver,
} from '../decode/observer.ts';
import type { GenerationStep, Health, StepStats } from '../decode/types.ts';

/** Creates the gateway's metrics. Names and labels follow OpenTelemetry's conventions for generative AI if possible. */
export function gatewayMetrics(registry: Registry) {
  const registers = [registry];
  const histogram = (name: string, help: string, labelNames: string[] = [], buckets = SECONDS) =>
    new Histogram({ name, help, labelNames, buckets, enableExemplars: true, registers });
  const counter = (name: string, help: string, labelNames: string[] = []) =>
    new Counter({ name, help, labelNames, registers });
  const request = ['gen_ai_operation_name', 'gen_ai_provider_name', 'gen_ai_request_model'];
  const metrics = {
    streams: new Gauge({ name: 'ptp_streams', help: 'Number of sequences being generated.', registers }),
    requestDuration: histogram(
      'gen_ai_server_request_duration_seconds',
      'Duration of a sequence. The label error_type is set if the sequence failed.',
      [...request, 'error_type'],
    ),
    timeToFirstToken: histogram(
      'gen_ai_server_time_to_first_token_seconds',
      'Time from the start of a sequence to its first tokens.',
      request,
    ),
    timePerOutputToken: histogram(
      'gen_ai_server_time_per_output_token_seconds',
      'Mean time per token of a sequence, without its first step.',
      request,
    ),
    inputTokens: counter(
      'ptp_tokens_input_total',
      'Number of prompt tokens. The label cached is "true" for tokens that were found in the prefix cache.',
      ['cached'],
    ),
    outputTokens: counter('ptp_tokens_output_total', 'Number of generated tokens.'),
    steps: counter(
      'ptp_steps_total',
      'Number of steps by mode and reason for the mode. The reason "no drafter" means a fallback.',
      ['mode', 'reason'],
    ),
    proposed: counter(
      'ptp_tokens_proposed_total',
      'Number of verified tokens by source, acceptance and position in the block (16 for all positions from 16 on).',
      ['source', 'position', 'accepted'],
    ),
    acceptedLength: histogram(
      'ptp_step_accepted',
      'Number of accepted tokens per step, for steps with proposed tokens.',
      ['source'],
      [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 24, 32, 64],
    ),
    stepDuration: histogram('ptp_step_duration_seconds', 'Duration of steps by mode.', ['mode']),
    verifyDuration: histogram('ptp_step_verify_duration_seconds', 'Duration of verify calls, measured at the gateway.'),
    draftDuration: histogram(
      'ptp_step_draft_duration_seconds',
      'Duration of draft calls, measured at the gateway. The label beside is "true" for calls that were concurrent with a verify call.',
      ['beside'],
    ),
    lostDrafts: counter(
      'ptp_drafts_lost_total',
      'Number of draft calls without a result. The reason is "late" after PTP_DRAFT_TIMEOUT_SECONDS, or else "failed".',
      ['reason'],
    ),
    overlap: counter('ptp_step_overlap_seconds_total', 'Time during which draft calls overlapped verify calls.'),
    refusals: counter('ptp_refusals_total', 'Number of rejected requests by error_type.', ['error_type']),
    verifierLosses: counter(
      'ptp_verifier_losses_total',
      'Number of times that a sequence lost its verifier and continued at another verifier.',
    ),
  };
  // Counters with labels would otherwise appear with the first event, which `rate` and `increase` do not count.
  for (const reason of ['late', 'failed']) metrics.lostDrafts.inc({ reason }, 0);
  for (const error_type of REPORTED_REJECTIONS) metrics.refusals.inc({ error_type }, 0);
  return metrics;
}

export type GatewayMetrics = ReturnType<typeof gatewayMetrics>;

/** Adds a metric for the availability of the services. @param hasDrafter whether the target has a drafter */
export function watchHealth(registry: Registry, health: () => Health, hasDrafter: boolean): void {
  new Gauge({
    name: 'ptp_peer_usable',
    help: '1 if the service can be used, else 0.',
    labelNames: ['peer'],
    registers: [registry],
    collect() {
      const { verifier, drafter } = health();
      this.set({ peer: 'verifier' }, Number(verifier));
      if (hasDrafter) this.set({ peer: 'drafter' }, Number(drafter));
    },
  });
}

/** Number of positions in a block that have their own label. Later positions share the last label. */
const POSITIONS = 16;

/** Counts requests and steps. */
export function metricsObserver(metrics: GatewayMetrics): StepObserver {
  return { requestStarted: (request) => new RequestMetrics(metrics, request) };
}

class RequestMetrics implements RequestObserver {
  readonly #metrics: GatewayMetrics;
  readonly #request: ObservedRequest;
  readonly #labels: Record<string, string>;
  #first: { readonly at: number; readonly tokens: number } | undefined;

  constructor(metrics: GatewayMetrics, request: ObservedRequest) {
    this.#metrics = metrics;
    this.#request = request;
    this.#labels = {
      gen_ai_operation_name: request.request.operation ?? 'text_completion',
      gen_ai_provider_name: 'ptp',
      gen_ai_request_model: request.model.modelId,
    };
    metrics.streams.inc();
  }

  verifierLost(): void {
    this.#metrics.verifierLosses.inc();
  }

  callEnded(call: Call, { error }: CallResult): void {
    if (call.kind === 'verify' || error === undefined) return;
    const { code } = toPtpError(error);
    if (code === 'cancelled') return;
    this.#metrics.lostDrafts.inc({ reason: code === 'deadline_exceeded' ? 'late' : 'failed' });
  }

  stepFinished({ tokens, stats, traceparent, reusedTokens = 0 }: GenerationStep, at: number): void {
    const { timeToFirstToken, inputTokens, outputTokens } = this.#metrics;
    if (!this.#first) {
      const { request, startedAt } = this.#request;
      this.#first = { at, tokens: tokens.length };
      timeToFirstToken.observe({ value: (at - startedAt) / 1000, ...this.#requestLabels() });
      inputTokens.inc({ cached: 'true' }, reusedTokens);
      inputTokens.inc({ cached: 'false' }, request.prompt.length - reusedTokens);
    }
    outputTokens.inc(tokens.length);
    this.#count(stats, exemplar(traceparent));
  }

  requestFinished({ at, finish, error, isAborted, tokens }: RequestOutcome): void {
    const { streams, requestDuration, timePerOutputToken } = this.#metrics;
    streams.dec();
    // A reader that stops at a stop string counts as a success, but a client that disconnects does not.
    const code = error === undefined ? isAborted && 'cancelled' : toPtpError(error).code;
    const { labels, exemplarLabels } = this.#requestLabels();
    const outcome = code ? { ...labels, error_type: code } : labels;
    requestDuration.observe({ value: (at - this.#request.startedAt) / 1000, labels: outcome, exemplarLabels });
    const first = this.#first;
    if (!finish || !first || tokens <= first.tokens) return;
    const value = (at - first.at) / 1000 / (tokens - first.tokens);
    timePerOutputToken.observe({ value, labels, exemplarLabels });
  }

  #requestLabels() {
    return { labels: this.#labels, exemplarLabels: exemplar(this.#request.traceparent) };
  }

  #count(stats: StepStats, exemplarLabels: Record<string, string>): void {
    const metrics = this.#metrics;
    const { mode, reason, source, drafted, accepted, stepMicros, verifyMicros, draftMicros, redraftMicros } = stats;
    const draft = (micros: number, beside: 'true' | 'false') =>
      metrics.draftDuration.observe({ value: micros / 1e6, labels: { beside }, exemplarLabels });
    metrics.steps.inc({ mode, reason });
    metrics.stepDuration.observe({ value: stepMicros / 1e6, labels: { mode }, exemplarLabels });
    metrics.verifyDuration.observe({ value: verifyMicros / 1e6, exemplarLabels });
    if (draftMicros > 0) draft(draftMicros, 'true');
    if (redraftMicros > 0) draft(redraftMicros, 'false');
    const both = verifyMicros + draftMicros - (stepMicros - redraftMicros);
    if (draftMicros > 0 && both > 0) metrics.overlap.inc(Math.min(both, draftMicros, verifyMicros) / 1e6);
    if (drafted === 0) return;
    metrics.acceptedLength.observe({ value: accepted, labels: { source }, exemplarLabels });
    for (let k = 0; k < drafted; k++) {
      metrics.proposed.inc({ source, position: Math.min(k + 1, POSITIONS), accepted: String(k < accepted) });
    }
  }
}

/**
 * Returns the labels of an exemplar that links to a span.
 *
 * @param traceparent trace context of the span, or an empty string if the span is not sampled
 */
function exemplar(traceparent = ''): Record<string, string> {
  const [, trace_id, span_id] = traceparent.split('-');
  return trace_id && span_id ? { trace_id, span_id } : {};
}

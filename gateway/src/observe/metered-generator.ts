import type { Span } from '@opentelemetry/api';
import { toPtpError } from '@ptp/protocol/errors';
import { exemplarLabels } from '@ptp/service-kit/spans';
import { Gauge, type Registry } from 'prom-client';
import type { GenerationRequest, GenerationStep, Generator, Health, ModelInfo, StepStats } from '../decode/types.ts';
import type { GatewayMetrics } from './metrics.ts';

/** Positions in a block that are told apart. */
const POSITIONS = 16;

/** A generator whose steps are counted as they pass. */
export class MeteredGenerator implements Generator {
  readonly #inner: Generator;
  readonly #metrics: GatewayMetrics;
  readonly #streams: Gauge;

  /** @param hasDrafter whether there is to be one: a target that is served alone has none to miss */
  constructor(inner: Generator, metrics: GatewayMetrics, registry: Registry, hasDrafter: boolean) {
    this.#inner = inner;
    this.#metrics = metrics;
    const registers = [registry];
    this.#streams = new Gauge({ name: 'ptp_streams', help: 'Sequences being generated.', registers });
    new Gauge({
      name: 'ptp_peer_usable',
      help: 'Whether a service can be used, 1 or 0.',
      labelNames: ['peer'],
      registers,
      collect() {
        const { verifier, drafter } = inner.health();
        this.set({ peer: 'verifier' }, Number(verifier));
        if (hasDrafter) this.set({ peer: 'drafter' }, Number(drafter));
      },
    });
  }

  get model(): ModelInfo {
    return this.#inner.model;
  }

  health(): Health {
    return this.#inner.health();
  }

  async *generate(request: GenerationRequest, signal: AbortSignal): AsyncGenerator<GenerationStep> {
    const metrics = this.#metrics;
    const labels = {
      gen_ai_operation_name: request.operation ?? 'text_completion',
      gen_ai_provider_name: 'ptp',
      gen_ai_request_model: this.model.modelId,
    };
    const began = performance.now();
    let [first, firstTokens, tokens] = [0, 0, 0];
    let span: Span | undefined;
    const onSpan = (begun: Span) => {
      span = begun;
    };
    let failure: unknown;
    let ended = false;
    this.#streams.inc();
    try {
      for await (const step of this.#inner.generate(request, signal, onSpan)) {
        tokens += step.tokens.length;
        if (first === 0) {
          first = performance.now();
          firstTokens = tokens;
          metrics.timeToFirstToken.observe({
            value: (first - began) / 1000,
            labels,
            exemplarLabels: exemplarLabels(span),
          });
          const cached = step.reusedTokens ?? 0;
          metrics.inputTokens.inc({ cached: 'true' }, cached);
          metrics.inputTokens.inc({ cached: 'false' }, request.prompt.length - cached);
        }
        metrics.outputTokens.inc(step.tokens.length);
        this.#count(step.stats, exemplarLabels(step.span));
        ended = step.finish !== undefined;
        yield step;
      }
    } catch (error) {
      failure = error;
      throw error;
    } finally {
      this.#streams.dec();
      // who stops reading at a stop string has got what they wanted, who has hung up has not
      const left = !ended && signal.aborted ? 'cancelled' : undefined;
      const error = failure === undefined ? left : toPtpError(failure).code;
      const now = performance.now();
      const exemplar = exemplarLabels(span);
      const outcome = error ? { ...labels, error_type: error } : labels;
      metrics.requestDuration.observe({ value: (now - began) / 1000, labels: outcome, exemplarLabels: exemplar });
      if (ended && tokens > firstTokens) {
        const value = (now - first) / 1000 / (tokens - firstTokens);
        metrics.timePerOutputToken.observe({ value, labels, exemplarLabels: exemplar });
      }
    }
  }

  /** @param exemplarLabels of the step's span */
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

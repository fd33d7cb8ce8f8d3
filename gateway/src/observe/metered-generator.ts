import type { Context, Meter, Span } from '@opentelemetry/api';
import { toPtpError } from '@ptp/protocol/errors';
import { attribute, contextOf } from '@ptp/service-kit/spans';
import type { GenerationRequest, GenerationStep, Generator, Health, PairFacts, StepFacts } from '../decode/types.ts';
import type { GatewayMetrics } from './metrics.ts';

/** Positions in a block that are told apart. */
const POSITIONS = 16;

/** A generator whose steps are counted as they pass. */
export class MeteredGenerator implements Generator {
  readonly #inner: Generator;
  readonly #metrics: GatewayMetrics;
  #open = 0;

  /** @param hasDrafter whether there is to be one: a target that is served alone has none to miss */
  constructor(inner: Generator, metrics: GatewayMetrics, meter: Meter, hasDrafter: boolean) {
    this.#inner = inner;
    this.#metrics = metrics;
    meter
      .createObservableGauge('ptp.streams', { unit: '{stream}', description: 'Sequences being generated.' })
      .addCallback((result) => result.observe(this.#open));
    meter
      .createObservableGauge('ptp.peer.usable', { description: 'Whether a service can be used, 1 or 0.' })
      .addCallback((result) => {
        const { verifier, drafter } = inner.health();
        result.observe(Number(verifier), { peer: 'verifier' });
        if (hasDrafter) result.observe(Number(drafter), { peer: 'drafter' });
      });
  }

  get facts(): PairFacts {
    return this.#inner.facts;
  }

  health(): Health {
    return this.#inner.health();
  }

  async *generate(request: GenerationRequest, signal: AbortSignal): AsyncGenerator<GenerationStep> {
    const metrics = this.#metrics;
    const labels = {
      [attribute.operation]: request.operation ?? 'text_completion',
      [attribute.provider]: 'ptp',
      [attribute.requestModel]: this.facts.modelId,
    };
    const began = performance.now();
    let [first, firstTokens, tokens] = [0, 0, 0];
    let span: Span | undefined;
    const onSpan = (begun: Span) => {
      span = begun;
    };
    let failure: unknown;
    let ended = false;
    this.#open++;
    try {
      for await (const step of this.#inner.generate(request, signal, onSpan)) {
        tokens += step.tokens.length;
        if (first === 0) {
          first = performance.now();
          firstTokens = tokens;
          metrics.timeToFirstToken.record((first - began) / 1000, labels, contextOf(span));
          const cached = step.reusedTokens ?? 0;
          metrics.inputTokens.add(cached, { cached: true });
          metrics.inputTokens.add(request.prompt.length - cached, { cached: false });
        }
        metrics.outputTokens.add(step.tokens.length);
        this.#count(step.facts, contextOf(step.span));
        ended = step.finish !== undefined;
        yield step;
      }
    } catch (error) {
      failure = error;
      throw error;
    } finally {
      this.#open--;
      // who stops reading at a stop string has got what they wanted, who has hung up has not
      const left = !ended && signal.aborted ? 'cancelled' : undefined;
      const error = failure === undefined ? left : toPtpError(failure).code;
      const now = performance.now();
      const context = contextOf(span);
      const outcome = error ? { ...labels, [attribute.errorType]: error } : labels;
      metrics.requestDuration.record((now - began) / 1000, outcome, context);
      if (ended && tokens > firstTokens) {
        metrics.timePerOutputToken.record((now - first) / 1000 / (tokens - firstTokens), labels, context);
      }
    }
  }

  /** @param context of the step's span */
  #count(facts: StepFacts, context: Context | undefined): void {
    const metrics = this.#metrics;
    const { mode, reason, source, drafted, accepted, stepMicros, verifyMicros, draftMicros, redraftMicros } = facts;
    metrics.steps.add(1, { mode, reason });
    metrics.stepDuration.record(stepMicros / 1e6, { mode }, context);
    metrics.verifyDuration.record(verifyMicros / 1e6, {}, context);
    if (draftMicros > 0) metrics.draftDuration.record(draftMicros / 1e6, { beside: true }, context);
    if (redraftMicros > 0) metrics.draftDuration.record(redraftMicros / 1e6, { beside: false }, context);
    const both = verifyMicros + draftMicros - (stepMicros - redraftMicros);
    if (draftMicros > 0 && both > 0) metrics.overlap.add(Math.min(both, draftMicros, verifyMicros) / 1e6);
    if (drafted === 0) return;
    metrics.acceptedLength.record(accepted, { source }, context);
    for (let k = 0; k < drafted; k++) {
      metrics.proposed.add(1, { source, position: Math.min(k + 1, POSITIONS), accepted: k < accepted });
    }
  }
}

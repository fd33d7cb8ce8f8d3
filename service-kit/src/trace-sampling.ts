import { ROOT_CONTEXT, type SpanContext, SpanKind, TraceFlags } from '@opentelemetry/api';
import {
  AlwaysOffSampler,
  AlwaysOnSampler,
  ParentBasedSampler,
  type Sampler,
  SamplingDecision,
  TraceIdRatioBasedSampler,
} from '@opentelemetry/sdk-trace';

/** Which spans are sampled. */
export interface Sampling {
  readonly sampler: Sampler;
  /** Whether the sampler takes a span below one of another process. */
  samples(above: SpanContext): boolean;
}

/** Names that OTEL_TRACES_SAMPLER may have, each also after `parentbased_`. */
export const SAMPLERS = ['always_on', 'always_off', 'traceidratio'] as const;

/** What OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG say; undefined if they say nothing that there is. */
export function samplingFrom(env: NodeJS.ProcessEnv): Sampling | undefined {
  const name = env.OTEL_TRACES_SAMPLER || 'parentbased_always_on';
  const root = rootSampler(name.replace(/^parentbased_/, ''), Number(env.OTEL_TRACES_SAMPLER_ARG || 1));
  if (!root) return undefined;
  if (name.startsWith('parentbased_')) {
    return {
      sampler: new ParentBasedSampler({ root }),
      samples: ({ traceFlags }) => (traceFlags & TraceFlags.SAMPLED) !== 0,
    };
  }
  return {
    sampler: root,
    // these look at nothing but the trace's id
    samples: ({ traceId }) =>
      root.shouldSample(ROOT_CONTEXT, traceId, '', SpanKind.INTERNAL, {}, []).decision ===
      SamplingDecision.RECORD_AND_SAMPLED,
  };
}

function rootSampler(name: string, ratio: number): Sampler | undefined {
  switch (name) {
    case 'always_on':
      return new AlwaysOnSampler();
    case 'always_off':
      return new AlwaysOffSampler();
    case 'traceidratio':
      return ratio >= 0 && ratio <= 1 ? new TraceIdRatioBasedSampler(ratio) : undefined;
    default:
      return undefined;
  }
}

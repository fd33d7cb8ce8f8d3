import type { Meter } from '@opentelemetry/api';
import { SECONDS } from '@ptp/service-kit/metrics';

/** What the gateway counts. Names, units and labels by OpenTelemetry's conventions, for generative AI where there are some. */
export function gatewayMetrics(meter: Meter) {
  const seconds = (name: string, description: string) =>
    meter.createHistogram(name, { description, unit: 's', advice: { explicitBucketBoundaries: SECONDS } });
  const counter = (name: string, unit: string, description: string) => meter.createCounter(name, { unit, description });
  return {
    requestDuration: seconds(
      'gen_ai.server.request.duration',
      'From a sequence entering the loop to its end; error.type tells failures.',
    ),
    timeToFirstToken: seconds('gen_ai.server.time_to_first_token', "From a sequence's start to its first tokens."),
    timePerOutputToken: seconds('gen_ai.server.time_per_output_token', 'Per token after the first step, by sequence.'),
    inputTokens: counter('ptp.tokens.input', '{token}', 'Tokens of prompts; `cached` for those the verifier knew.'),
    outputTokens: counter('ptp.tokens.output', '{token}', 'Tokens generated.'),
    steps: counter('ptp.steps', '{step}', 'Steps by mode and why; reason "no drafter" is a fallback.'),
    proposed: counter(
      'ptp.tokens.proposed',
      '{token}',
      'Tokens that were verified, by source, position in their block (from 1, 16 for all further ones) and whether they were accepted.',
    ),
    acceptedLength: meter.createHistogram('ptp.step.accepted', {
      unit: '{token}',
      description: 'Proposed tokens that a step accepted, of steps that had some.',
      advice: { explicitBucketBoundaries: [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 24, 32, 64] },
    }),
    stepDuration: seconds('ptp.step.duration', 'Whole steps, by mode.'),
    verifyDuration: seconds('ptp.step.verify.duration', 'Verify calls as the gateway sees them.'),
    draftDuration: seconds(
      'ptp.step.draft.duration',
      'Draft calls as the gateway sees them; `beside` a verify call or before it.',
    ),
    overlap: counter('ptp.step.overlap', 's', 'Time in which a draft call ran beside a verify call.'),
    refusals: counter('ptp.refusals', '{request}', 'Requests refused at the door, by error.type.'),
    verifierLosses: counter(
      'ptp.verifier.losses',
      '{stream}',
      'Streams that lost their verifier and went on elsewhere.',
    ),
  };
}

export type GatewayMetrics = ReturnType<typeof gatewayMetrics>;

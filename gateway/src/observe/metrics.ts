import { SECONDS } from '@ptp/service-kit/metrics';
import { Counter, Histogram, type Registry } from 'prom-client';

/** Metrics of the gateway. Names and labels follow OpenTelemetry's conventions for generative AI where there are some. */
export function gatewayMetrics(registry: Registry) {
  const registers = [registry];
  const histogram = (name: string, help: string, labelNames: string[] = [], buckets = SECONDS) =>
    new Histogram({ name, help, labelNames, buckets, enableExemplars: true, registers });
  const counter = (name: string, help: string, labelNames: string[] = []) =>
    new Counter({ name, help, labelNames, registers });
  const request = ['gen_ai_operation_name', 'gen_ai_provider_name', 'gen_ai_request_model'];
  return {
    requestDuration: histogram(
      'gen_ai_server_request_duration_seconds',
      'From a sequence entering the loop to its end; error_type tells failures.',
      [...request, 'error_type'],
    ),
    timeToFirstToken: histogram(
      'gen_ai_server_time_to_first_token_seconds',
      "From a sequence's start to its first tokens.",
      request,
    ),
    timePerOutputToken: histogram(
      'gen_ai_server_time_per_output_token_seconds',
      'Per token after the first step, by sequence.',
      request,
    ),
    inputTokens: counter('ptp_tokens_input_total', 'Tokens of prompts; `cached` for those the verifier knew.', [
      'cached',
    ]),
    outputTokens: counter('ptp_tokens_output_total', 'Tokens generated.'),
    steps: counter('ptp_steps_total', 'Steps by mode and why; reason "no drafter" is a fallback.', ['mode', 'reason']),
    proposed: counter(
      'ptp_tokens_proposed_total',
      'Tokens that were verified, by source, position in their block (from 1, 16 for all further ones) and whether they were accepted.',
      ['source', 'position', 'accepted'],
    ),
    acceptedLength: histogram(
      'ptp_step_accepted',
      'Proposed tokens that a step accepted, of steps that had some.',
      ['source'],
      [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 24, 32, 64],
    ),
    stepDuration: histogram('ptp_step_duration_seconds', 'Whole steps, by mode.', ['mode']),
    verifyDuration: histogram('ptp_step_verify_duration_seconds', 'Verify calls as the gateway sees them.'),
    draftDuration: histogram(
      'ptp_step_draft_duration_seconds',
      'Draft calls as the gateway sees them; `beside` a verify call or before it.',
      ['beside'],
    ),
    overlap: counter('ptp_step_overlap_seconds_total', 'Time in which a draft call ran beside a verify call.'),
    refusals: counter('ptp_refusals_total', 'Requests refused at the door, by error_type.', ['error_type']),
    verifierLosses: counter('ptp_verifier_losses_total', 'Streams that lost their verifier and went on elsewhere.'),
  };
}

export type GatewayMetrics = ReturnType<typeof gatewayMetrics>;

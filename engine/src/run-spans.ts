import type { Attributes } from '@opentelemetry/api';
import { attribute, contextFrom, endSpan, recordSpan, span, untraced } from '@ptp/service-kit/spans';
import type { Served } from './scheduler.ts';

/**
 * Records a step that has just been served, with its two parts: waiting for a run, and the run.
 *
 * @param traceparent of the caller's span; without one nothing is recorded
 */
export function recordRun(
  name: string,
  traceparent: string | undefined,
  { queueMicros, runMicros, batchSize }: Pick<Served<unknown>, 'queueMicros' | 'runMicros' | 'batchSize'>,
  attributes: Attributes = {},
): void {
  const context = contextFrom(traceparent);
  if (context === untraced) return;
  const endTime = performance.now();
  const runStart = endTime - runMicros / 1000;
  const startTime = runStart - queueMicros / 1000;
  const timings = {
    [attribute.queueMicros]: queueMicros,
    [attribute.runMicros]: runMicros,
    [attribute.batchSize]: batchSize,
  };
  const parent = span(name, { parent: context, startTime, attributes: { ...attributes, ...timings } });
  recordSpan('ptp.queue', { parent, startTime, endTime: runStart });
  recordSpan('ptp.run', { parent, startTime: runStart, endTime, attributes: { [attribute.batchSize]: batchSize } });
  endSpan(parent, { endTime });
}

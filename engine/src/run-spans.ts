import type { Attributes } from '@opentelemetry/api';
import { attribute, contextFrom, endSpan, recordSpan, span, untraced } from '@ptp/service-kit/spans';
import type { Served } from './scheduler.ts';

/**
 * Records a span for a slot that was just served, with child spans for the queue and the run.
 *
 * @param traceparent the caller's span. If it is absent, nothing is recorded
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

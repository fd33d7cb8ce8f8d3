import { availableMemory, budgetOf, type MemoryBudget, requireMemory } from '@ptp/service-kit/memory';
import { HTTP_LIMITS } from './app.ts';
import { MEMORY_LIMIT } from './grammar/cache.ts';

/** Node.js with the tokenizer and the connections to the services. Measured with the default model. */
const RUNTIME = 180e6;
/** Sequence in progress, with its tokens, text and buffers. */
const STREAM = 1e6;
/** Trace with the maximum number of steps. */
const TRACE = 0.5e6;

/**
 * Returns the maximum memory of the gateway.
 *
 * @throws PtpError `failed_precondition` if it exceeds the available memory
 */
export function gatewayBudget(
  { maxStreams, tracesKept }: { readonly maxStreams: number; readonly tracesKept: number },
  available = availableMemory(),
): MemoryBudget {
  const parts = {
    runtime: RUNTIME,
    request_bodies: HTTP_LIMITS.arrivingLimit,
    grammars: MEMORY_LIMIT,
    streams: maxStreams * STREAM,
    traces: tracesKept * TRACE,
  };
  const budget = budgetOf(parts, available);
  requireMemory(budget, 'lower PTP_MAX_STREAMS or PTP_TRACES_KEPT, or raise the memory limit');
  return budget;
}

import { availableMemory, budgetOf, type MemoryBudget, requireMemory } from '@ptp/service-kit/memory';
import { HTTP_LIMITS } from './app.ts';
import { MEMORY_LIMIT } from './grammar/cache.ts';

/** Memory of Node.js and of the connections to the services, in bytes. Measured with a small vocabulary. */
const RUNTIME = 180e6;
/** Memory of a vocabulary entry: its text, merges and trie nodes, in bytes. Measured with 151,936 entries. */
const VOCABULARY_ENTRY = 1.5e3;
/** Memory of a sequence in progress with its tokens, text and buffers, in bytes. */
const STREAM = 1e6;
/** Memory of a trace with the maximum number of steps, in bytes. */
const TRACE = 0.5e6;

/**
 * Returns the maximum memory of the gateway.
 *
 * @throws PtpError `failed_precondition` if the budget exceeds the available memory
 */
export function gatewayBudget(
  { maxStreams, tracesKept }: { readonly maxStreams: number; readonly tracesKept: number },
  { vocab }: { readonly vocab: number },
  available = availableMemory(),
): MemoryBudget {
  const parts = {
    runtime: RUNTIME,
    tokenizer: vocab * VOCABULARY_ENTRY,
    request_bodies: HTTP_LIMITS.arrivingLimit,
    grammars: MEMORY_LIMIT,
    streams: maxStreams * STREAM,
    traces: tracesKept * TRACE,
  };
  const budget = budgetOf(parts, available);
  requireMemory(budget, 'lower PTP_MAX_STREAMS or PTP_TRACES_KEPT, or raise the memory limit');
  return budget;
}

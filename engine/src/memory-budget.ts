import type { Manifest } from '@ptp/protocol/manifest';
import { availableMemory, budgetOf, type MemoryBudget, requireMemory } from '@ptp/service-kit/memory';
import { BATCH_TOKENS } from './scheduler.ts';

/**
 * Memory of Node.js with two threads, ONNX Runtime, its buffers, and freed arrays that are not collected yet, in bytes.
 * Measured with the default model (docs/deploy.md).
 */
const RUNTIME = 380e6;
/** Memory of one graph without its weights, in bytes. */
const GRAPH = 10e6;
/**
 * Number of float32 vectors over the vocabulary per token of a run: logits, probabilities, their sorted copy, and the
 * inputs `scale` and `bias`.
 */
const VECTORS = 5;
/** Maximum factor by which ONNX Runtime's allocator rounds up the size of a large block, to a power of two. */
const ROUNDING = 2;
/** Default maximum number of open sequences. */
export const SEQUENCE_LIMIT = 256;

export interface ModelMemory {
  readonly kind: 'target' | 'drafter';
  readonly manifest: Manifest;
  /** Maximum number of open sequences. 0 means as many as fit, at most 256. */
  readonly sequences: number;
  readonly prefixCacheBytes: number;
  /** True if a smaller prefix cache is acceptable when the memory does not suffice. */
  readonly prefixCacheShrinks?: boolean;
}

/**
 * Returns the maximum memory of a process that runs a model with ONNX Runtime, and the number of sequences and the size
 * of the prefix cache that fit. Each graph has its own copy of the weights, and every sequence may fill the context.
 *
 * @throws PtpError `failed_precondition` if the memory does not suffice for the sequences, or for one sequence
 */
export function modelBudget(
  { kind, manifest, sequences, prefixCacheBytes: wanted, prefixCacheShrinks = false }: ModelMemory,
  available = availableMemory(),
): MemoryBudget & { readonly sequences: number; readonly prefixCacheBytes: number } {
  const rows = manifest.context_length + 1;
  const perSequence = rows * (manifest.bytes_per_token[kind] ?? 0);
  const graphs = (kind === 'target' ? manifest.target?.slots : undefined) ?? manifest.max_slots;
  const valuesPerToken = manifest.sizes.vocab * VECTORS + rows;
  const fixed = {
    runtime:
      RUNTIME +
      BATCH_TOKENS * valuesPerToken * Float32Array.BYTES_PER_ELEMENT +
      (kind === 'target' ? copiedCaches(manifest, Math.max(...graphs) * perSequence) : 0),
    model: graphs.length * (weightsInMemory(kind, manifest) + GRAPH),
  };
  const free = available - budgetOf(fixed).total - Math.max(1, sequences) * perSequence;
  const prefixCacheBytes = prefixCacheShrinks ? Math.max(0, Math.min(wanted, Math.floor(free))) : wanted;
  const parts = { ...fixed, prefix_cache: prefixCacheBytes };
  const room = Math.floor((available - budgetOf(parts).total) / perSequence);
  const count = sequences || Math.max(1, Math.min(SEQUENCE_LIMIT, room));
  const budget = budgetOf({ ...parts, sequences: count * perSequence }, available);
  requireMemory(budget, `${adviceFor(count, room, prefixCacheBytes)}raise the memory limit`);
  return { ...budget, sequences: count, prefixCacheBytes };
}

/** Returns the beginning of the advice: the setting to lower, or an empty string if no lower value suffices. */
function adviceFor(sequences: number, room: number, prefixCacheBytes: number): string {
  if (room >= 1) return `lower PTP_SEQUENCE_LIMIT from ${sequences} to ${room}, or `;
  return prefixCacheBytes > 0 ? 'lower PTP_PREFIX_CACHE_MB, or ' : '';
}

/** Returns the size of the loaded weights in bytes. Float16 files take twice their size if the graph uses float32. */
function weightsInMemory(kind: 'target' | 'drafter', manifest: Manifest): number {
  const { precision, storage } = manifest[kind] ?? {};
  const bytes = manifest.files[`${kind}.weights`]?.bytes ?? 0;
  return storage === 'float16' && precision === 'float32' ? 2 * bytes : bytes;
}

/**
 * Returns the size of the copies of caches that a run of a target makes, in bytes. From float16 caches, a run converts
 * one layer's keys and values of one sequence to float32. Graphs for GPUs return new caches for all their sequences.
 *
 * @param all size of the caches of as many sequences as the largest graph has
 */
function copiedCaches({ target, sizes, context_length: context }: Manifest, all: number): number {
  if (target?.device === 'gpu') return all;
  if (target?.cache_type !== 'float16') return 0;
  return ROUNDING * 2 * (context + 1) * sizes.kv_heads * sizes.head_width * Float32Array.BYTES_PER_ELEMENT;
}

import type { Manifest } from '@ptp/protocol/manifest';
import { availableMemory } from '@ptp/service-kit/memory';

/**
 * Number of rows in a block. Only whole blocks are reused. Fewer rows are not worth a copy, because nearly all prompts
 * share their first token. Blocks also limit a side channel: cached_tokens reveals other clients' prompts only in steps
 * of 16 tokens.
 */
export const BLOCK = 16;

/** Rounds a number of shared rows down to whole blocks. */
export function wholeBlocks(shared: number): number {
  return shared - (shared % BLOCK);
}

/** Returns the number of equal tokens at the start of two sequences. */
export function sharedLength(a: ArrayLike<number>, b: ArrayLike<number>): number {
  const most = Math.min(a.length, b.length);
  let length = 0;
  while (length < most && a[length] === b[length]) length++;
  return length;
}

/** Minimum size of the prefix cache in bytes, if the setting is `auto` and the memory suffices (`modelBudget`). */
const SMALLEST = 256e6;
/** Number of sequences of full length for which `auto` makes room. */
const SEQUENCES = 2;
/** Maximum share of the memory that `auto` uses. */
const MEMORY_SHARE = 1 / 8;

/**
 * Returns the maximum size of the prefix cache in bytes.
 *
 * @param megabytes value of PTP_PREFIX_CACHE_MB
 * @param memory memory of the machine or container in bytes
 */
export function prefixCacheLimit(
  megabytes: number | 'auto',
  { bytes_per_token: bytes, context_length: length }: Pick<Manifest, 'bytes_per_token' | 'context_length'>,
  kind: 'target' | 'drafter',
  memory = availableMemory(),
): number {
  if (megabytes !== 'auto') return megabytes * 1e6;
  const bytesPerToken = (kind === 'drafter' ? bytes.drafter : undefined) ?? bytes.target;
  return Math.max(SMALLEST, Math.min(SEQUENCES * (length + 1) * bytesPerToken, Math.floor(memory * MEMORY_SHARE)));
}

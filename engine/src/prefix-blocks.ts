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
export function sharedLength(a: readonly number[], b: readonly number[]): number {
  const most = Math.min(a.length, b.length);
  let length = 0;
  while (length < most && a[length] === b[length]) length++;
  return length;
}

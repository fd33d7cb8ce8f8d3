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

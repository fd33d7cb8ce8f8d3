/**
 * Rows are reused in blocks of this size: fewer are not worth a copy, and nearly all prompts share their first token.
 * It also limits a side channel: cached_tokens reveals other clients' prompts only in steps of 16 tokens.
 */
export const BLOCK = 16;

/** The rows of `shared` that form whole blocks. */
export function wholeBlocks(shared: number): number {
  return shared - (shared % BLOCK);
}

import type { SequenceCache } from './kv-cache.ts';

/**
 * Rows are taken over in blocks of so many: less is not worth a copy, and nearly all prompts share their first token. It is also how
 * finely the number of known tokens, which the client is told, speaks of other clients' prompts.
 */
export const BLOCK = 16;

/**
 * Caches of finished sequences, kept because a new prompt may begin as they do: the next turn of a chat, a system prompt that
 * many share. A row depends on the tokens up to it and on nothing else, so that rows taken over are bit for bit what reading
 * the tokens again would give.
 */
export class PrefixCache {
  readonly #limit: number;
  /** The least recently used first. */
  readonly #parked = new Set<SequenceCache>();
  #bytes = 0;

  /** @param limit most bytes of keys and values to keep; 0 keeps none */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Bytes of keys and values kept. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Sequences kept. */
  get sequences(): number {
    return this.#parked.size;
  }

  /** Keeps a cache that its sequence needs no more; those that say nothing beyond another one are dropped. */
  park(cache: SequenceCache): void {
    if (cache.rows === 0 || cache.bytes > this.#limit) return;
    const tokens = cache.tokens.subarray(0, cache.rows);
    for (const other of this.#parked) {
      const shared = sharedRows(other, tokens);
      if (shared === cache.rows) {
        this.#touch(other);
        return;
      }
      if (shared === other.rows) this.#drop(other);
    }
    this.#parked.add(cache);
    this.#bytes += cache.bytes;
    for (const oldest of this.#parked) {
      if (this.#bytes <= this.#limit) break;
      this.#drop(oldest);
    }
  }

  /**
   * The longest beginning of `tokens`, in whole blocks, that a parked cache or one of `open` holds; of equals the most recently used.
   *
   * @returns the cache and how many of its rows are of use; undefined if it is not one block
   */
  longest(
    tokens: ArrayLike<number>,
    open: Iterable<SequenceCache>,
  ): { cache: SequenceCache; rows: number } | undefined {
    if (this.#limit === 0) return undefined;
    let best: { cache: SequenceCache; rows: number } | undefined;
    for (const cache of [...this.#parked, ...open]) {
      const shared = sharedRows(cache, tokens);
      const rows = shared - (shared % BLOCK);
      if (rows > 0 && rows >= (best?.rows ?? 0)) best = { cache, rows };
    }
    if (best && this.#parked.has(best.cache)) this.#touch(best.cache);
    return best;
  }

  /** Makes it the most recently used. */
  #touch(cache: SequenceCache): void {
    this.#parked.delete(cache);
    this.#parked.add(cache);
  }

  #drop(cache: SequenceCache): void {
    this.#parked.delete(cache);
    this.#bytes -= cache.bytes;
  }
}

/** How many rows of a cache are those of the first of `tokens`. */
function sharedRows(cache: SequenceCache, tokens: ArrayLike<number>): number {
  const most = Math.min(cache.rows, tokens.length);
  let rows = 0;
  while (rows < most && cache.tokens[rows] === tokens[rows]) rows++;
  return rows;
}

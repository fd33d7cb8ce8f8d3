import { sharedLength, wholeBlocks } from '../prefix-blocks.ts';
import type { KvCache } from './kv-cache.ts';

/**
 * KV caches of closed sequences, for prompts with the same prefix: the next turn of a chat, or a shared system prompt.
 * A row depends only on the tokens up to it, so reused rows are bit-identical to rows computed again.
 */
export class PrefixCache<Cache extends KvCache = KvCache> {
  readonly #limit: number;
  /** Caches of closed sequences, the least recently used first. */
  readonly #parked = new Set<Cache>();
  #bytes = 0;
  #droppedRows = 0;

  /** @param limit maximum size of the kept keys and values in bytes; 0 disables the cache */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Size of the kept keys and values in bytes. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Number of kept sequences. */
  get sequences(): number {
    return this.#parked.size;
  }

  /** Number of rows that were dropped, or not kept, because of the limit. */
  get droppedRows(): number {
    return this.#droppedRows;
  }

  /**
   * Keeps the cache of a closed sequence, or its beginning if it is larger than the limit. Removes each cache whose
   * tokens are a prefix of another cache's tokens.
   */
  park(cache: Cache): void {
    if (cache.rows > 0 && this.#limit > 0) this.#fit(cache);
    if (cache.rows === 0 || this.#limit === 0) {
      cache.release();
      return;
    }
    const tokens = cache.tokens.subarray(0, cache.rows);
    for (const other of this.#parked) {
      const shared = sharedRows(other, tokens);
      if (shared === cache.rows) {
        this.#touch(other);
        cache.release();
        return;
      }
      if (shared === other.rows) this.#drop(other);
    }
    this.#parked.add(cache);
    this.#bytes += cache.bytes;
    for (const oldest of this.#parked) {
      if (this.#bytes <= this.#limit) break;
      this.#droppedRows += oldest.rows;
      this.#drop(oldest);
    }
  }

  /** Shortens a cache that is larger than the limit to the whole blocks that fit. */
  #fit(cache: Cache): void {
    if (cache.bytes <= this.#limit) return;
    const most = wholeBlocks(Math.floor((this.#limit * cache.tokens.length) / cache.bytes));
    const rows = cache.rows;
    cache.shrink(Math.min(rows, most));
    this.#droppedRows += rows - cache.rows;
  }

  /**
   * Finds the longest prefix of `tokens`, in whole blocks, in the kept caches and the caches of `open`. Prefers the
   * most recently used cache if several match equally.
   *
   * @returns the cache and the number of rows to reuse, or undefined if no block matches
   */
  longest(tokens: ArrayLike<number>, open: Iterable<Cache>): SharedPrefix<Cache> | undefined {
    if (this.#limit === 0) return undefined;
    let best: SharedPrefix<Cache> | undefined;
    for (const cache of [...this.#parked, ...open]) {
      const shared = sharedRows(cache, tokens);
      const rows = wholeBlocks(shared);
      if (rows > 0 && rows >= (best?.rows ?? 0)) best = { cache, rows };
    }
    if (best && this.#parked.has(best.cache)) this.#touch(best.cache);
    return best;
  }

  /** Marks a cache as the most recently used. */
  #touch(cache: Cache): void {
    this.#parked.delete(cache);
    this.#parked.add(cache);
  }

  #drop(cache: Cache): void {
    this.#parked.delete(cache);
    this.#bytes -= cache.bytes;
    cache.release();
  }
}

type SharedPrefix<Cache> = { readonly cache: Cache; readonly rows: number };

/** Returns the length of the prefix that a cache shares with `tokens`. */
function sharedRows({ tokens: held, rows }: KvCache, tokens: ArrayLike<number>): number {
  return sharedLength(held.subarray(0, rows), tokens);
}

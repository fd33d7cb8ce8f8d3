/** Estimated size of an automaton state with its transitions, stacks and keys, in bytes. */
export const STATE_BYTES = 4096;

/** Holder of memory that can be computed again. */
export interface Holder {
  forget(): void;
}

/** Limit for the memory that several holders use together. The least recently charged holders forget first. */
export class MemoryLimit {
  readonly #limit: number;
  /** Bytes of each holder. The most recently charged holder is last. */
  readonly #bytes = new Map<Holder, number>();
  #total = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  get total(): number {
    return this.#total;
  }

  /** Adds to the bytes of a holder. If the total exceeds the limit, holders forget until half of the limit is free. */
  charge(holder: Holder, bytes: number): void {
    const own = (this.#bytes.get(holder) ?? 0) + bytes;
    this.#bytes.delete(holder);
    this.#bytes.set(holder, own);
    this.#total += bytes;
    if (this.#total <= this.#limit) return;
    for (const each of [...this.#bytes.keys()]) {
      if (this.#total <= this.#limit / 2) break;
      this.#release(each);
    }
  }

  /** Frees all memory of a holder. */
  #release(holder: Holder): void {
    holder.forget();
    this.#total -= this.#bytes.get(holder) ?? 0;
    this.#bytes.delete(holder);
  }
}

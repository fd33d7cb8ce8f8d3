/** Keys or values in float32, or the bits of keys or values in float16. */
export type CacheNumbers = Float32Array | Uint16Array;

/** [layers] arrays of rows, each with `width` numbers. */
interface KeyValues {
  readonly keys: readonly CacheNumbers[];
  readonly values: readonly CacheNumbers[];
}

/** KV cache of one sequence. */
export interface KvCache {
  /** [rows] tokens, and unused elements. */
  readonly tokens: Int32Array;
  /** Number of valid rows. */
  readonly rows: number;
  /** Allocated size of keys and values in bytes. */
  readonly bytes: number;
  prepare(at: number, count: number): void;
  /** Takes the first `count` rows of another cache of the same kind. This cache must be empty and prepared for them. */
  copyFrom(other: this, count: number): void;
  /** Removes at least the rows from `count` on, and frees the memory that the others do not need. */
  shrink(count: number): void;
  /** Frees memory that garbage collection does not free. */
  release(): void;
}

/** Factor by which full arrays grow: a compromise between unused memory and copies. */
const GROWTH = 1.25;

/** Keys, values and tokens of one sequence, one row per token. */
export class SequenceCache implements KeyValues, KvCache {
  keys: CacheNumbers[];
  values: CacheNumbers[];
  tokens = new Int32Array();
  /** Number of valid rows. */
  rows = 0;
  readonly #width: number;
  readonly #limit: number;
  readonly #Numbers: Float32ArrayConstructor | Uint16ArrayConstructor;

  /**
   * @param layers number of layers with keys and values
   * @param width number of numbers in one row of keys or values
   * @param limit maximum number of rows: the context length and a row of padding
   * @param Numbers type of the arrays: Uint16Array for float16
   */
  constructor(
    layers: number,
    width: number,
    limit: number,
    Numbers: Float32ArrayConstructor | Uint16ArrayConstructor = Float32Array,
  ) {
    this.#width = width;
    this.#limit = limit;
    this.#Numbers = Numbers;
    this.keys = Array.from({ length: layers }, () => new Numbers());
    this.values = Array.from({ length: layers }, () => new Numbers());
  }

  get bytes(): number {
    return 2 * this.keys.length * this.tokens.length * this.#width * this.#Numbers.BYTES_PER_ELEMENT;
  }

  /** Removes the rows from `at` on and makes room for `count` new rows. */
  prepare(at: number, count: number): void {
    if (at > this.rows) throw new RangeError(`row ${at} must be at most the number of rows, ${this.rows}`);
    this.rows = at;
    if (at + count <= this.tokens.length) return;
    const capacity = Math.min(this.#limit, Math.max(64, Math.ceil(GROWTH * this.tokens.length), at + count));
    const grow = (old: CacheNumbers) => {
      const grown = new this.#Numbers(capacity * this.#width);
      grown.set(old.subarray(0, at * this.#width));
      return grown;
    };
    this.keys = this.keys.map(grow);
    this.values = this.values.map(grow);
    const tokens = new Int32Array(capacity);
    tokens.set(this.tokens.subarray(0, at));
    this.tokens = tokens;
  }

  copyFrom(other: SequenceCache, count: number): void {
    this.append([...other.tokens.subarray(0, count)], other, 0);
  }

  shrink(count: number): void {
    const cut = (old: CacheNumbers) => old.slice(0, count * this.#width);
    for (const arrays of [this.keys, this.values]) {
      for (const layer of arrays.keys()) arrays[layer] = cut(arrays[layer] as CacheNumbers);
    }
    this.tokens = this.tokens.slice(0, count);
    this.rows = count;
  }

  release(): void {}

  /** Returns a view of the rows [start, end) of a layer's keys or values. */
  view(kind: 'keys' | 'values', layer: number, start: number, end: number): CacheNumbers {
    return (this[kind][layer] as CacheNumbers).subarray(start * this.#width, end * this.#width);
  }

  /** Counts the rows of `tokens`, which a run has written after the last row. */
  extend(tokens: readonly number[]): void {
    this.tokens.set(tokens, this.rows);
    this.rows += tokens.length;
  }

  /**
   * Appends rows, for which `prepare` must have made room.
   *
   * @param source rows of all slots of a run. The rows of this sequence begin at row `start`
   */
  append(tokens: readonly number[], source: KeyValues, start: number): void {
    const [from, to] = [start * this.#width, (start + tokens.length) * this.#width];
    const end = this.rows * this.#width;
    for (const [layer, rows] of source.keys.entries()) this.keys[layer]?.set(rows.subarray(from, to), end);
    for (const [layer, rows] of source.values.entries()) this.values[layer]?.set(rows.subarray(from, to), end);
    this.extend(tokens);
  }
}

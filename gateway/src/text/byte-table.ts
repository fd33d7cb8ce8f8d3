/**
 * Byte strings in one buffer. An array for each token of a large vocabulary would take many times the memory of its
 * bytes.
 */
export class ByteTable {
  readonly #data: Uint8Array;
  /** [count] end of each string in `#data`. */
  readonly #ends: Uint32Array;
  /** Length of the longest string. */
  readonly maxLength: number;

  /** @param bytesOf function that returns string number `index`. It is called once for each, in order */
  constructor(count: number, bytesOf: (index: number) => Uint8Array) {
    let data = new Uint8Array(count * 8);
    let end = 0;
    let maxLength = 0;
    this.#ends = new Uint32Array(count);
    for (let index = 0; index < count; index++) {
      const bytes = bytesOf(index);
      if (end + bytes.length > data.length) {
        const larger = new Uint8Array(2 * (end + bytes.length));
        larger.set(data);
        data = larger;
      }
      data.set(bytes, end);
      end += bytes.length;
      this.#ends[index] = end;
      maxLength = Math.max(maxLength, bytes.length);
    }
    this.#data = data.slice(0, end);
    this.maxLength = maxLength;
  }

  /** Returns a view of a string, or undefined if there is no string with this number. */
  at(index: number): Uint8Array | undefined {
    const end = this.#ends[index];
    return end === undefined ? undefined : this.#data.subarray(this.#ends[index - 1] ?? 0, end);
  }
}

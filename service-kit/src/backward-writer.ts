/** Wire types (https://protobuf.dev/programming-guides/encoding). */
const [VARINT, FIXED64, LENGTH, FIXED32] = [0, 1, 2, 5];

/** Words whose bytes are kept, and the longest of them. */
const WORDS = 1024;
const LONGEST_WORD = 64;
const words = new Map<string, Uint8Array>();

/**
 * Writes protocol buffers from their end to their beginning: what a message holds comes before its length, which is then known. So the last
 * field is written first, and a message is closed by `message` with the size before its last field.
 */
export class BackwardWriter {
  #bytes: Buffer;
  #view: DataView;
  /** Where the written part begins. */
  #at: number;

  constructor(room: number) {
    this.#bytes = Buffer.allocUnsafeSlow(Math.max(room, 1024));
    this.#view = viewOf(this.#bytes);
    this.#at = this.#bytes.length;
  }

  /** Bytes written. */
  get size(): number {
    return this.#bytes.length - this.#at;
  }

  finish(): Uint8Array {
    return this.#bytes.subarray(this.#at);
  }

  /** Closes a message. @param after the size before it */
  message(field: number, after: number): void {
    this.#varint(this.size - after);
    this.#varint((field << 3) | LENGTH);
  }

  text(field: number, text: string): void {
    this.bytes(field, words.get(text) ?? encoded(text));
  }

  bytes(field: number, bytes: Uint8Array): void {
    this.#advance(bytes.length);
    this.#bytes.set(bytes, this.#at);
    this.#varint(bytes.length);
    this.#varint((field << 3) | LENGTH);
  }

  /** Bytes that are given in hexadecimal. */
  hex(field: number, digits: string): void {
    this.#advance(digits.length / 2);
    this.#bytes.write(digits, this.#at, 'hex');
    this.#varint(digits.length / 2);
    this.#varint((field << 3) | LENGTH);
  }

  /** @param value an integer; negative ones as int64 has them */
  integer(field: number, value: number): void {
    if (value >= 0) this.#varint(value);
    else this.#negative(value);
    this.#varint((field << 3) | VARINT);
  }

  double(field: number, value: number): void {
    this.#advance(8);
    this.#view.setFloat64(this.#at, value, true);
    this.#varint((field << 3) | FIXED64);
  }

  fixed64(field: number, value: bigint): void {
    this.#advance(8);
    this.#view.setBigUint64(this.#at, value, true);
    this.#varint((field << 3) | FIXED64);
  }

  fixed32(field: number, value: number): void {
    this.#advance(4);
    this.#view.setUint32(this.#at, value, true);
    this.#varint((field << 3) | FIXED32);
  }

  #varint(value: number): void {
    if (value < 0x80) {
      this.#advance(1);
      this.#bytes[this.#at] = value;
      return;
    }
    let size = 1;
    for (let rest = value; rest >= 0x80; rest = Math.floor(rest / 0x80)) size++;
    this.#advance(size);
    let place = this.#at;
    let rest = value;
    for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) this.#bytes[place++] = (rest % 0x80) | 0x80;
    this.#bytes[place] = rest;
  }

  /** Two's complement of 64 bits takes ten bytes. */
  #negative(value: number): void {
    this.#advance(10);
    let rest = BigInt.asUintN(64, BigInt(value));
    for (let i = 0; i < 9; i++, rest >>= 7n) this.#bytes[this.#at + i] = Number(rest & 0x7fn) | 0x80;
    this.#bytes[this.#at + 9] = Number(rest);
  }

  /** Makes room for what is written next, at `#at`. */
  #advance(count: number): void {
    if (this.#at < count) {
      const larger = Buffer.allocUnsafeSlow(2 * this.#bytes.length + count);
      const at = larger.length - this.size;
      larger.set(this.finish(), at);
      this.#bytes = larger;
      this.#view = viewOf(larger);
      this.#at = at;
    }
    this.#at -= count;
  }
}

/** Names, keys and most values are few words, again and again. */
function encoded(text: string): Uint8Array {
  const bytes = Buffer.from(text);
  if (text.length <= LONGEST_WORD && words.size < WORDS) words.set(text, bytes);
  return bytes;
}

function viewOf({ buffer, byteOffset, byteLength }: Buffer): DataView {
  return new DataView(buffer, byteOffset, byteLength);
}

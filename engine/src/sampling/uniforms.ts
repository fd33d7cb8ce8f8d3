// The auxiliary variables u of Parallel Token Prediction. They come from a counter-based generator: u depends only on
// seed and position, so a stream that continues after a failover draws the same numbers.

const MULTIPLIER_0 = 0xd2511f53;
const MULTIPLIER_1 = 0xcd9e8d57;
const WEYL_0 = 0x9e3779b9;
const WEYL_1 = 0xbb67ae85;
const ROUNDS = 10;

/**
 * Returns the upper 32 bits of the product of two 32-bit words. It multiplies 16-bit halves, so partial sums stay below
 * 2^32.
 */
function multiplyHigh(a: number, b: number): number {
  const aLow = a & 0xffff;
  const aHigh = a >>> 16;
  const bLow = b & 0xffff;
  const bHigh = b >>> 16;
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16);
  const carry = aLow * bHigh + (middle & 0xffff);
  return aHigh * bHigh + (middle >>> 16) + (carry >>> 16);
}

/**
 * Computes one block of Philox4x32-10 in place.
 *
 * @param words 4 words: the counter before the call, the output after it
 * @param key0 low word of the key
 * @param key1 high word of the key
 */
export function philox4x32(words: Uint32Array, key0: number, key1: number): void {
  let [c0 = 0, c1 = 0, c2 = 0, c3 = 0] = words;
  let k0 = key0;
  let k1 = key1;
  for (let round = 0; round < ROUNDS; round++) {
    const high0 = multiplyHigh(MULTIPLIER_0, c0);
    const low0 = Math.imul(MULTIPLIER_0, c0);
    const high1 = multiplyHigh(MULTIPLIER_1, c2);
    const low1 = Math.imul(MULTIPLIER_1, c2);
    c0 = high1 ^ c1 ^ k0;
    c1 = low1;
    c2 = high0 ^ c3 ^ k1;
    c3 = low0;
    k0 = (k0 + WEYL_0) | 0;
    k1 = (k1 + WEYL_1) | 0;
  }
  words.set([c0, c1, c2, c3]);
}

/**
 * Source of a sequence's uniforms: the token with index i in the sequence is picked with the uniforms of position i +
 * offset. Positions count modulo 2^32, because those of prompt tokens are negative.
 */
export interface UniformSource {
  /** Seed of the request, in [0, 2^64). */
  readonly seed: bigint;
  /** Difference between the position of a token and its index, in [-2^31, 2^31). */
  readonly offset: number;
}

/** Returns the uniforms that pick the `count` tokens of a sequence from `index` on, [count * dimensions]. */
export function uniformsAt({ seed, offset }: UniformSource, index: number, count: number, dimensions: number) {
  return uniforms(seed, index + offset, count, dimensions);
}

/**
 * Returns the uniforms of `count` consecutive positions.
 *
 * @param seed the request's seed, in [0, 2^64)
 * @param firstPosition position of the first row, modulo 2^32: the number of generated tokens before it
 * @param count number of rows
 * @param dimensions the number of coordinates per position, D
 * @returns [count * dimensions] in [0, 1), row-major: entry `i * dimensions + d` is coordinate d of position
 *   firstPosition + i
 */
export function uniforms(seed: bigint, firstPosition: number, count: number, dimensions = 1): Float32Array {
  const [key0, key1] = [Number(seed & 0xffffffffn), Number(seed >> 32n)];
  const values = new Float32Array(count * dimensions);
  const words = new Uint32Array(4);
  for (let row = 0; row < count; row++) {
    for (let block = 0; block * 4 < dimensions; block++) {
      words.set([firstPosition + row, block, 0, 0]);
      philox4x32(words, key0, key1);
      const end = Math.min(4, dimensions - block * 4);
      for (let i = 0; i < end; i++) values[row * dimensions + block * 4 + i] = toUnitInterval(words[i] as number);
    }
  }
  return values;
}

/** Returns `count` random tokens, which the seed determines. `first` is the position of the first token's uniform. */
export function randomTokens(seed: bigint, count: number, vocabulary: number, first = 0): number[] {
  return Array.from(uniforms(seed, first, count), (u) => Math.floor(u * vocabulary));
}

function toUnitInterval(word: number): number {
  return (word >>> 8) * 2 ** -24;
}

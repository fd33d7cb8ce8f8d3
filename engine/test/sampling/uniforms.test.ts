import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import vectors from '../../../test/vectors/uniforms.json' with { type: 'json' };
import { philox4x32, uniforms, uniformsAt } from '../../src/sampling/uniforms.ts';

/** Returns coordinate `d` of one position. */
const uniform = (seed: bigint, position: number, d = 0) => uniforms(seed, position, 1, d + 1)[d] as number;

describe('philox4x32-10', () => {
  // Known answers of Random123 (tests/kat_vectors): counter, key, output.
  const ones = 0xffffffff;
  test.each([
    [
      [0, 0, 0, 0],
      [0, 0],
      [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8],
    ],
    [
      [ones, ones, ones, ones],
      [ones, ones],
      [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd],
    ],
    [
      [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
      [0xa4093822, 0x299f31d0],
      [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
    ],
  ])('gives the published answer for counter %j', (counter, [key0 = 0, key1 = 0], output) => {
    const words = Uint32Array.from(counter);
    philox4x32(words, key0, key1);
    expect([...words]).toEqual(output);
  });
});

describe('uniform', () => {
  test('takes the top 24 bits of word d mod 4 of block floor(d / 4)', () => {
    const expected = [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8].map((word) => (word >>> 8) / 2 ** 24);
    expect([0, 1, 2, 3].map((d) => uniform(0n, 0, d))).toEqual(expected);
    expect(uniform(0n, 0, 4)).not.toBe(uniform(0n, 0, 0));
  });

  test('uses both halves of the seed, the low one as the first key word', () => {
    const words = Uint32Array.of(5, 0, 0, 0);
    philox4x32(words, 0xdeadbeef, 0x01234567);
    expect(uniform(0x01234567deadbeefn, 5)).toBe(((words[0] as number) >>> 8) / 2 ** 24);
  });

  test.each(vectors.cases)('seed $seed, position $position, d $d', ({ seed, position, d, value, float32_bits }) => {
    expect(uniform(BigInt(seed), position, d)).toBe(value);
    expect(new Uint32Array(Float32Array.of(value).buffer)[0]).toBe(Number(float32_bits));
  });

  test('counts positions modulo 2^32', () => {
    expect([...uniforms(5n, -1, 2)]).toEqual([uniform(5n, 2 ** 32 - 1), uniform(5n, 0)]);
    expect(uniformsAt({ seed: 5n, offset: -3 }, 2, 2, 1)).toEqual(uniforms(5n, -1, 2));
  });
});

describe('uniforms', () => {
  test('equal single draws, wherever the run starts and however many coordinates a position has', () => {
    const anySeed = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
    const anyPosition = fc.integer({ min: 0, max: 2 ** 32 - 9 });
    const dimensionCounts = fc.integer({ min: 1, max: 17 });
    fc.assert(
      fc.property(anySeed, anyPosition, fc.nat(8), dimensionCounts, (seed, first, count, dimensions) => {
        const rows = Array.from({ length: count }, (_, i) => first + i);
        const single = rows.flatMap((row) => Array.from({ length: dimensions }, (_, d) => uniform(seed, row, d)));
        expect([...uniforms(seed, first, count, dimensions)]).toEqual(single);
      }),
    );
  });

  test('are uniform on [0, 1): mean, variance, extremes and neighbours', () => {
    const n = 200_000;
    const u = uniforms(7n, 0, n);
    const mean = u.reduce((sum, x) => sum + x, 0) / n;
    const variance = u.reduce((sum, x) => sum + (x - mean) ** 2, 0) / n;
    const neighbours = u.subarray(1).reduce((sum, x, i) => sum + (x - mean) * ((u[i] as number) - mean), 0) / n;
    // The tolerances are five standard errors.
    expect(Math.abs(mean - 1 / 2)).toBeLessThan(5 * Math.sqrt(1 / 12 / n));
    expect(Math.abs(variance - 1 / 12)).toBeLessThan(5 * Math.sqrt(1 / 180 / n));
    expect(Math.abs(neighbours)).toBeLessThan((5 * (1 / 12)) / Math.sqrt(n));
    expect(u.every((x) => x >= 0 && x < 1)).toBe(true);
  });
});

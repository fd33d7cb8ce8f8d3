import type { ShapedDistribution } from './shape.ts';

const f32 = Math.fround;

/**
 * Pick(u, P) = min { j : F_j > u Z }, by inverse transform sampling over the kept tokens in vocabulary order
 * (PTP paper, arXiv 2512.21323; docs/ptp.md, "Sampling as a function"). F is the float32 running sum of the
 * probabilities and Z its last value, so rounding in the sum cannot leave a u without a token: for u <= 1 - 2^-24,
 * which uniforms.ts never exceeds, u Z stays below Z in float32. A u still nearer to 1 gives the last kept token.
 *
 * @param u in [0, 1), from uniforms.ts
 * @returns the token's id
 */
export function pick(u: number, { probabilities, kept }: ShapedDistribution): number {
  const total = kept.reduce((sum, id) => f32(sum + (probabilities[id] as number)), 0);
  const threshold = f32(u * total);
  let cumulative = 0;
  for (const id of kept) {
    cumulative = f32(cumulative + (probabilities[id] as number));
    if (cumulative > threshold) return id;
  }
  return kept.at(-1) as number;
}

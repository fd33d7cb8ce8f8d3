// Writes test/vectors/*.json, which the TypeScript and the Python tests both check themselves against. Uniforms come
// from core's Philox, which its own tests check against the published answers; what the sampler must give is computed
// here a second time, in float64 and straight from the definitions. Run by `npm run vectors`; the output is committed.
import { writeFileSync } from 'node:fs';
import { uniform } from '@ptp/core/sampling/uniforms.ts';

const SEEDS = [0n, 1n, 42n, 0xffffffffn, 0x100000000n, 0x123456789abcdef0n, 2n ** 64n - 1n];
const POSITIONS = [0, 1, 2, 255, 65536, 2 ** 32 - 1];
const COORDINATES = [0, 1, 3, 4, 11];
const SAMPLING_CASES = 200;
/** Distance that a case keeps from every border in [0, 1], so that float32 rounding cannot change its answer. */
const MARGIN = 1e-4;

interface SamplingCase {
  logits: number[];
  temperature: number;
  top_k: number;
  top_p: number;
  u: number;
  kept: number[];
  token: number;
}

function uniformCases() {
  return SEEDS.flatMap((seed) =>
    POSITIONS.flatMap((position) =>
      COORDINATES.map((d) => {
        const value = uniform(seed, position, d);
        return { seed: `${seed}`, position, d, value, float32_bits: `0x${float32Bits(value)}` };
      }),
    ),
  );
}

function float32Bits(value: number): string {
  return new Uint32Array(Float32Array.of(value).buffer)[0]?.toString(16).padStart(8, '0') ?? '';
}

/** A reproducible stream of choices. */
function choices(seed: bigint) {
  let position = 0;
  const next = () => uniform(seed, position++);
  const oneOf = <T>(values: readonly T[]): T => values[Math.floor(next() * values.length)] as T;
  return { next, oneOf };
}

function samplingCases(): SamplingCase[] {
  const { next, oneOf } = choices(2512_21323n);
  const cases: SamplingCase[] = [];
  while (cases.length < SAMPLING_CASES) {
    const size = oneOf([1, 2, 3, 5, 8, 13, 24]);
    const step = oneOf([0.001, 0.001, 1]); // whole numbers make ties
    const logits = Array.from({ length: size }, () => Number((Math.round((next() * 12 - 6) / step) * step).toFixed(3)));
    const temperature = oneOf([0, 0.2, 0.5, 0.7, 1, 1, 1.3, 2]);
    const top_k = Math.min(oneOf([0, 0, 1, 2, 4, 10]), size);
    const top_p = oneOf([1, 1, 0.95, 0.9, 0.5, 0.1]);
    const u = Number(next().toFixed(4));
    const answer = u < 1 ? sample(logits, temperature, top_k, top_p, u) : undefined;
    if (answer) cases.push({ logits, temperature, top_k, top_p, u, ...answer });
  }
  return cases;
}

/** The definitions in core/src/sampling/shape.ts and pick.ts, in float64; undefined for a case near a border. */
function sample(logits: number[], temperature: number, topK: number, topP: number, u: number) {
  const ranked = logits.map((_, id) => id).sort((a, b) => at(logits, b) - at(logits, a) || a - b);
  if (temperature === 0) return { kept: [at(ranked, 0)], token: at(ranked, 0) };

  const withinTopK = ranked.slice(0, topK || logits.length);
  const weights = logits.map((logit) => Math.exp(logit / temperature));
  const total = (ids: number[]) => ids.reduce((sum, id) => sum + at(weights, id), 0);
  const above = withinTopK.map((_, r) => total(withinTopK.slice(0, r)) / total(withinTopK));
  if (topP < 1 && above.some((mass) => Math.abs(mass - topP) < MARGIN)) return undefined;

  const kept = withinTopK.filter((_, r) => topP === 1 || at(above, r) < topP).sort((a, b) => a - b);
  const cumulative = kept.map((_, i) => total(kept.slice(0, i + 1)) / total(kept));
  if (cumulative.slice(0, -1).some((border) => Math.abs(border - u) < MARGIN)) return undefined;
  return {
    kept,
    token: at(
      kept,
      cumulative.findIndex((border) => border > u),
    ),
  };
}

function at(values: number[], index: number): number {
  const value = values[index];
  if (value === undefined) throw new RangeError(`no value at ${index}`);
  return value;
}

/** One case a line, so that a change shows in a diff. */
function write(name: string, about: string, cases: readonly object[]): void {
  const lines = cases.map((entry) => `    ${JSON.stringify(entry)}`).join(',\n');
  const file = new URL(`../test/vectors/${name}.json`, import.meta.url);
  writeFileSync(file, `{\n  "about": ${JSON.stringify(about)},\n  "cases": [\n${lines}\n  ]\n}\n`);
  console.log(`test/vectors/${name}.json: ${cases.length} cases`);
}

write(
  'uniforms',
  'u(seed, position, d) by Philox4x32-10: value is a multiple of 2^-24, exact in float32 and float64',
  uniformCases(),
);
write(
  'sampling',
  'logits and u to the kept tokens and the picked token: temperature, top-k, top-p, pick',
  samplingCases(),
);

// `npm run vectors` writes test/vectors/*.json. These files are committed, and tests in TypeScript and Python check
// against them. Uniforms come from the engine's Philox, which its own tests check against published answers. The
// sampler's results are computed here a second time, in float64 and straight from the definitions.
import { writeFileSync } from 'node:fs';
import { uniforms } from '@ptp/engine/sampling/uniforms';

const SEEDS = [0n, 1n, 42n, 0xffffffffn, 0x100000000n, 0x123456789abcdef0n, 2n ** 64n - 1n];
const POSITIONS = [0, 1, 2, 255, 65536, 2 ** 32 - 1];
const COORDINATES = [0, 1, 3, 4, 11];
const SAMPLING_CASES = 200;
const TREE_CASES = 160;
/** The largest uniform random number. */
const BELOW_ONE = 1 - 2 ** -24;
/** Distance from every boundary in [0, 1], so that float32 rounding cannot change a case's answer. */
const MARGIN = 1e-4;

interface Conditions {
  temperature: number;
  top_k: number;
  top_p: number;
}

interface SamplingCase extends Conditions {
  logits: number[];
  u: number;
  kept: number[];
  token: number;
}

/** Makes a case for the tree: u [D], D = max(1, ceil(log2 logits.length)). */
interface TreeCase extends Conditions {
  logits: number[];
  u: number[];
  kept: number[];
  token: number;
}

/** Returns coordinate `d` of one position. */
const uniform = (seed: bigint, position: number, d = 0) => uniforms(seed, position, 1, d + 1)[d] as number;

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

/** Makes random choices that are the same in every run. */
function choices(seed: bigint) {
  let position = 0;
  const next = () => uniform(seed, position++);
  const oneOf = <T>(values: readonly T[]): T => values[Math.floor(next() * values.length)] as T;
  return { next, oneOf };
}

type Choices = ReturnType<typeof choices>;

function someLogits({ next, oneOf }: Choices, size: number): number[] {
  const step = oneOf([0.001, 0.001, 1]); // Whole numbers produce ties.
  return Array.from({ length: size }, () => Number((Math.round((next() * 12 - 6) / step) * step).toFixed(3)));
}

function someConditions({ oneOf }: Choices, size: number): Conditions {
  const temperature = oneOf([0, 0.2, 0.5, 0.7, 1, 1, 1.3, 2]);
  const top_k = Math.min(oneOf([0, 0, 1, 2, 4, 10]), size);
  const top_p = oneOf([1, 1, 0.95, 0.9, 0.5, 0.1]);
  return { temperature, top_k, top_p };
}

function samplingCases(): SamplingCase[] {
  const random = choices(2512_21323n);
  const cases: SamplingCase[] = [];
  while (cases.length < SAMPLING_CASES) {
    const size = random.oneOf([1, 2, 3, 5, 8, 13, 24]);
    const logits = someLogits(random, size);
    const conditions = someConditions(random, size);
    const u = Number(random.next().toFixed(4));
    const shaped = u < 1 ? shape(logits, conditions) : undefined;
    const token = shaped && pick(shaped, u);
    if (shaped && token !== undefined) cases.push({ logits, ...conditions, u, kept: shaped.kept, token });
  }
  return cases;
}

function treeCases(): TreeCase[] {
  const random = choices(2512_21324n);
  const { next, oneOf } = random;
  const cases: TreeCase[] = [];
  while (cases.length < TREE_CASES) {
    const size = oneOf([1, 2, 3, 4, 5, 8, 13, 16, 24, 24, 33, 150]); // 150 tokens have eight levels.
    const logits = someLogits(random, size);
    const conditions = someConditions(random, size);
    const someUniform = () => (next() < 0.1 ? oneOf([0, BELOW_ONE]) : Number(next().toFixed(4)));
    const u = Array.from({ length: Math.max(1, Math.ceil(Math.log2(size))) }, someUniform);
    const shaped = u.every((value) => value < 1) ? shape(logits, conditions) : undefined;
    const token = shaped && pickTree(shaped, u);
    if (shaped && token !== undefined) cases.push({ logits, ...conditions, u, kept: shaped.kept, token });
  }
  return cases;
}

interface Shaped {
  /** Token ids in ascending order. */
  kept: number[];
  /** Probabilities [V], which sum to 1. They are 0 for tokens that are not kept. */
  probabilities: number[];
}

/**
 * Computes the definition in engine/src/testing/reference-sampler.ts in float64. Returns undefined for a case near a
 * boundary.
 */
function shape(logits: number[], { temperature, top_k, top_p }: Conditions): Shaped | undefined {
  const ranked = logits.map((_, id) => id).sort((a, b) => at(logits, b) - at(logits, a) || a - b);
  const best = at(ranked, 0);
  if (temperature === 0) return { kept: [best], probabilities: logits.map((_, id) => (id === best ? 1 : 0)) };

  const withinTopK = ranked.slice(0, top_k || logits.length);
  const weights = logits.map((logit) => Math.exp(logit / temperature));
  const total = (ids: number[]) => ids.reduce((sum, id) => sum + at(weights, id), 0);
  const above = withinTopK.map((_, r) => total(withinTopK.slice(0, r)) / total(withinTopK));
  if (top_p < 1 && above.some((mass) => Math.abs(mass - top_p) < MARGIN)) return undefined;

  const kept = withinTopK.filter((_, r) => top_p === 1 || at(above, r) < top_p).sort((a, b) => a - b);
  const probabilities = weights.map((weight, id) => (kept.includes(id) ? weight / total(kept) : 0));
  return { kept, probabilities };
}

/**
 * Computes `pick` from the definition in engine/src/testing/reference-sampler.ts in float64. Returns undefined for a
 * case near a boundary.
 */
function pick({ kept, probabilities }: Shaped, u: number): number | undefined {
  const cumulative = kept.map((_, i) => kept.slice(0, i + 1).reduce((sum, id) => sum + at(probabilities, id), 0));
  cumulative[cumulative.length - 1] = 1;
  if (cumulative.slice(0, -1).some((boundary) => Math.abs(boundary - u) < MARGIN)) return undefined;
  return kept[cumulative.findIndex((boundary) => boundary > u)];
}

/** Computes `pickTree` in float64 by halving a range of ids. Returns undefined for a case near a boundary on its path. */
function pickTree({ probabilities }: Shaped, u: number[]): number | undefined {
  let [first, size] = [0, 2 ** u.length];
  for (const value of u) {
    size /= 2;
    const mass = (start: number) => probabilities.slice(start, start + size).reduce((sum, p) => sum + p, 0);
    const [left, right] = [mass(first), mass(first + size)];
    const boundary = left / (left + right);
    // `pickTree` never enters an empty half, so the boundary is exact.
    if (left > 0 && right > 0 && Math.abs(boundary - value) < MARGIN) return undefined;
    if (value >= boundary) first += size;
  }
  return first;
}

function at(values: number[], index: number): number {
  const value = values[index];
  if (value === undefined) throw new RangeError(`no value at ${index}`);
  return value;
}

/** Formats each case as one line, so that diffs are readable. */
function write(name: string, about: string, cases: readonly object[]): void {
  const lines = cases.map((entry) => `    ${JSON.stringify(entry)}`).join(',\n');
  const file = new URL(`./${name}.json`, import.meta.url);
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
write(
  'tree',
  'logits and u [D] to the kept tokens and the token picked by the tree, D = max(1, ceil(log2 of the vocabulary))',
  treeCases(),
);

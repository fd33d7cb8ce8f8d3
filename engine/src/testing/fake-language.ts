import type { SamplingParams } from '@ptp/protocol/sampling-params';

/** The language of the fake engines; give target and drafter the same one to make a pair. */
export interface FakeLanguage {
  /** 256 by default. */
  readonly vocabulary?: number;
  /** 1024 by default. */
  readonly contextLength?: number;
  /** 4 by default. */
  readonly maxSlots?: number;
  /** D, 1 by default; the next token depends on all of them. */
  readonly uniformsPerPosition?: number;
  /** Sequence index at which token 0 follows; it never does elsewhere, or by default. */
  readonly endAt?: number;
}

/** Hash of no tokens. */
export const START = 0x811c9dc5;

/** One step of a hash over 32-bit words (multiply and xor-shift, as in MurmurHash3's finaliser). */
export function mix(state: number, word: number): number {
  let h = Math.imul(state ^ word, 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/** Uniforms as integers, multiples of 2^-24. */
export function words(u: ArrayLike<number>): number[] {
  return Array.from(u, (value) => Math.round(value * 2 ** 24));
}

/** Splits u [count * D] by position. */
export function positions(u: ArrayLike<number>, dimensions: number): number[][] {
  const values = Array.from(u);
  return Array.from({ length: values.length / dimensions }, (_, i) =>
    values.slice(i * dimensions, (i + 1) * dimensions),
  );
}

/** The token at sequence index `index`, after tokens whose hash is `state`. */
export function nextToken(
  state: number,
  index: number,
  sampling: SamplingParams,
  u: ArrayLike<number>,
  { vocabulary = 256, endAt }: FakeLanguage,
): number {
  if (index === endAt) return 0;
  const { temperature, topK, topP } = sampling;
  const parts = temperature === 0 ? [0] : [temperature * 1e6, topK, topP * 1e6, ...words(u)];
  const hash = parts.map(Math.round).reduce(mix, state);
  return 1 + (hash % (vocabulary - 1));
}

/**
 * The fake target's token after `tokens`: a hash of all of them, u [D] and the sampling parameters, but of u only if
 * temperature > 0. A caller that leaves a token out of the cache or passes the wrong u therefore gets another text.
 */
export function fakeNext(
  tokens: readonly number[],
  sampling: SamplingParams,
  u: ArrayLike<number>,
  language: FakeLanguage = {},
): number {
  return nextToken(tokens.reduce(mix, START), tokens.length, sampling, u, language);
}

/** The fake target's continuation of `prompt`, token by token: u [count * D], the i-th new token's from i * D on. */
export function fakeText(
  prompt: readonly number[],
  sampling: SamplingParams,
  u: ArrayLike<number>,
  language: FakeLanguage = {},
): number[] {
  const tokens = [...prompt];
  for (const values of positions(u, language.uniformsPerPosition ?? 1)) {
    tokens.push(fakeNext(tokens, sampling, values, language));
  }
  return tokens.slice(prompt.length);
}

import type { SamplingParams } from '@ptp/protocol/sampling-params';

/** Language of the fake engines. A target and a drafter with the same language form a pair. */
export interface FakeLanguage {
  /** Number of token ids. Default: 256. */
  readonly vocabulary?: number;
  /** Maximum length of a sequence in tokens. Default: 1024. */
  readonly contextLength?: number;
  /** Maximum number of slots in one run. Default: 4. */
  readonly maxSlots?: number;
  /** D, the number of uniforms per position. The next token depends on all of them. Default: 1. */
  readonly uniformsPerPosition?: number;
  /** Sequence index of token 0, which occurs nowhere else. By default, token 0 never occurs. */
  readonly endAt?: number;
}

/** Hash of an empty sequence of tokens. */
export const START = 0x811c9dc5;

/** Adds a word to a hash over 32-bit words (multiply and xor-shift, as in the finalizer of MurmurHash3). */
export function mix(state: number, word: number): number {
  let h = Math.imul(state ^ word, 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/** Converts uniforms, which are multiples of 2^-24, to integers. */
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

/** Returns the token at sequence index `index`, where `state` is the hash of the tokens before it. */
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
 * Returns the fake target's token after `tokens`: a hash of these tokens, the sampling parameters and, if temperature >
 * 0, u [D]. A caller that omits a token from the cache or passes the wrong u therefore gets another text.
 */
export function fakeNext(
  tokens: readonly number[],
  sampling: SamplingParams,
  u: ArrayLike<number>,
  language: FakeLanguage = {},
): number {
  return nextToken(tokens.reduce(mix, START), tokens.length, sampling, u, language);
}

/** Returns the fake target's continuation of `prompt`; u is [count * D], and its row i picks the i-th new token. */
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

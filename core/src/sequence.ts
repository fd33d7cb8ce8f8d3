import type { EngineFacts, SequenceId, SequenceStore } from './engine/engine.ts';
import { PtpError } from './errors.ts';
import type { SamplingParameters, SequenceStart, TokenAdjustments } from './gen/ptp/v1/common_pb.ts';
import { type AdjustParams, adjustParams } from './sampling/adjust.ts';
import { type SamplingParams, samplingParams } from './sampling/params.ts';
import { uniforms } from './sampling/uniforms.ts';

/** One sequence as both services see it: the tokens so far, and the uniforms of those to come. */
export class Sequence {
  /** Prompt and everything committed; grows. */
  readonly tokens: number[];
  readonly sampling: SamplingParams;
  readonly #seed: bigint;
  readonly #dimensions: number;
  /** Position of the token at index i is i + offset. */
  readonly #offset: number;

  /**
   * Checks what a client sent.
   *
   * @throws PtpError `invalid_argument` or `out_of_range`, naming field, limit and value
   */
  constructor(start: SequenceStart | undefined, facts: EngineFacts) {
    if (!start) throw new PtpError('invalid_argument', '`start` is missing', { field: 'start' });
    const limit = facts.contextLength - 1;
    if (start.tokens.length < 1 || start.tokens.length > limit) {
      const message = `\`start.tokens\` must have 1 to ${limit} tokens, got ${start.tokens.length}`;
      throw new PtpError('out_of_range', message, { field: 'start.tokens' });
    }
    checkTokens('start.tokens', start.tokens, facts.vocabulary);
    this.tokens = [...start.tokens];
    this.sampling = receivedSampling(start.sampling, facts.vocabulary);
    this.#seed = start.seed;
    this.#dimensions = facts.uniformsPerPosition;
    this.#offset = start.firstPosition - start.tokens.length;
  }

  /** [count * D] uniforms for the tokens at sequence indices index .. index + count - 1; index is at least the prompt's length. */
  uniformsAt(index: number, count: number): Float32Array {
    return uniforms(this.#seed, index + this.#offset, count, this.#dimensions);
  }
}

/**
 * Sampling parameters as a message brings them, checked; the defaults where there are none. Floats arrive as float32, which is
 * what shaping works in.
 */
export function receivedSampling(sampling: SamplingParameters | undefined, vocabulary: number): SamplingParams {
  if (!sampling) return samplingParams({}, vocabulary);
  const { temperature, topK, topP, minP } = sampling;
  return samplingParams({ temperature, topK, topP: topP === 0 ? 1 : topP, minP }, vocabulary);
}

/**
 * Token adjustments as a message brings them, checked; undefined where they ask for nothing.
 *
 * @throws PtpError `invalid_argument`, naming field, limit and value
 */
export function receivedAdjustments(given: TokenAdjustments | undefined, vocabulary: number): AdjustParams | undefined {
  if (!given) return undefined;
  const { logitBias, repetitionPenalty, presencePenalty, frequencyPenalty, heldBack, heldBackUntil } = given;
  const biases = new Map(Object.entries(logitBias).map(([id, bias]) => [Number(id), bias]));
  const repetition = repetitionPenalty === 0 ? 1 : repetitionPenalty;
  const penalties = { presencePenalty, frequencyPenalty, repetitionPenalty: repetition };
  return adjustParams({ logitBias: biases, ...penalties, heldBack, heldBackUntil }, vocabulary);
}

/** @throws PtpError `invalid_argument` at the first id that is not in the vocabulary */
export function checkTokens(field: string, tokens: readonly number[], vocabulary: number): void {
  const bad = tokens.findIndex((token) => token >= vocabulary);
  if (bad < 0) return;
  const message = `\`${field}[${bad}]\` must be in [0, ${vocabulary - 1}], got ${tokens[bad]}`;
  throw new PtpError('invalid_argument', message, { field });
}

/** @throws PtpError `resource_exhausted` when `limit` sequences are open already */
export function openWithin(engine: SequenceStore, limit: number): SequenceId {
  if (engine.usage().sequences >= limit) {
    throw new PtpError('resource_exhausted', `overloaded: ${limit} sequences are open already`);
  }
  return engine.open();
}

/** Cuts `tokens` from `first` on into chunks of at most `size`, with each chunk's start. */
export function* chunks(
  tokens: readonly number[],
  size: number,
  first = 0,
): Generator<{ at: number; tokens: number[] }> {
  for (let at = first; at < tokens.length; at += size) yield { at, tokens: tokens.slice(at, at + size) };
}

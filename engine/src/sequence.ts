import { PtpError } from '@ptp/protocol/errors';
import type { SequenceStart } from '@ptp/protocol/gen/ptp/v1/common_pb';
import { receivedSampling, type SamplingParams } from '@ptp/protocol/sampling-params';
import { fieldError, requireTokens } from '@ptp/protocol/validation';
import type { UniformSource } from './sampling/uniforms.ts';
import type { Engine, EngineInfo, SequenceId } from './types.ts';

/** Sequence of the drafter or the verifier: its tokens, and how the following tokens are picked. */
export class Sequence {
  /** Prompt and committed tokens. */
  readonly tokens: number[];
  readonly sampling: SamplingParams;
  readonly uniforms: UniformSource;

  /** Validates the start. @throws PtpError `invalid_argument` or `out_of_range`, naming field, limit and value */
  constructor(start: SequenceStart | undefined, info: EngineInfo) {
    if (!start) throw fieldError('start', 'is missing');
    const limit = info.contextLength - 1;
    if (start.tokens.length < 1 || start.tokens.length > limit) {
      throw fieldError('start.tokens', `must have 1 to ${limit} tokens, got ${start.tokens.length}`, 'out_of_range');
    }
    requireTokens('start.tokens', start.tokens, info.vocabulary);
    this.tokens = [...start.tokens];
    this.sampling = receivedSampling(start.sampling, info.vocabulary);
    // Positions count modulo 2^32, so any difference has an equivalent 32-bit integer.
    this.uniforms = { seed: start.seed, offset: (start.firstPosition - start.tokens.length) | 0 };
  }
}

/** Opens a sequence. @throws PtpError `resource_exhausted` if `limit` sequences are already open */
export function openWithin(engine: Engine, limit: number): SequenceId {
  if (engine.usage().sequences >= limit) {
    throw new PtpError('resource_exhausted', `overloaded: the maximum of ${limit} open sequences is reached`);
  }
  return engine.open();
}

/**
 * Splits `tokens` from index `first` on into chunks of at most `size` tokens, each with the row at which the chunk
 * starts.
 */
export function* chunks(
  tokens: readonly number[],
  size: number,
  first = 0,
): Generator<{ at: number; tokens: number[] }> {
  for (let at = first; at < tokens.length; at += size) yield { at, tokens: tokens.slice(at, at + size) };
}

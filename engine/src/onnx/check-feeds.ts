import type { SamplingParams } from '@ptp/protocol/sampling-params';
import { type BlockCheck, checkedLength } from '../types.ts';
import { type Feeds, float32, floats, int64, nothingAsked } from './feeds.ts';

/** One slot's part of a run that checks blocks. */
export interface Checked extends BlockCheck {
  /** Rows of context before the slot's own tokens. */
  readonly at: number;
  readonly tokens: readonly number[];
  readonly sampling: SamplingParams;
}

/** What a slot checks that only reads, or that no sequence uses: the graph wants at least one token drafted. */
export function idleCheck(dimensions: number): BlockCheck {
  return { block: 0, u: new Float32Array(dimensions) };
}

/** A slot that no sequence uses, beside its tokens. */
export const idleSlot = { at: 0, sampling: nothingAsked };

/**
 * Feeds of what a drafter checks and drafts: check_rows, check_tokens [B, C]; visible [B, 1]; uniforms [B, C + K, D]; steps [1]; the
 * sampling conditions [B, 1]. See `feature_graph` in training/src/ptp_train/export/graphs/feature_graph.py.
 *
 * @param dimensions D, uniforms per position
 */
export function checkFeeds(parts: readonly Checked[], dimensions: number): Feeds {
  const columns = 1 + Math.max(...parts.map(({ block }) => block));
  // the first drafted token is the check's
  const steps = Math.max(1, ...parts.map((part) => checkedLength(part, dimensions) - 1));
  const rows: number[] = [];
  const tokens: number[] = [];
  const width = (columns + steps) * dimensions;
  const uniforms = new Float32Array(parts.length * width);
  let start = 0;
  for (const [i, { tokens: own, block, u }] of parts.entries()) {
    const before = start + own.length - block - 1;
    for (let k = 0; k < columns; k++) {
      rows.push(before + Math.min(k, block));
      tokens.push(k < block ? (own[own.length - block + k] as number) : -1);
    }
    uniforms.set(u, i * width);
    start += Math.max(2, own.length);
  }
  const column = [parts.length, 1];
  const of = (value: (sampling: SamplingParams) => number) => floats(parts, ({ sampling }) => value(sampling), column);
  return {
    check_rows: int64(rows, [parts.length, columns]),
    check_tokens: int64(tokens, [parts.length, columns]),
    visible: int64(
      parts.map(({ at, tokens: own, block }) => at + own.length - block),
      column,
    ),
    uniforms: float32(uniforms, [parts.length, columns + steps, dimensions]),
    steps: int64([steps], [1]),
    'sampling.temperature': of(({ temperature }) => temperature),
    'sampling.top_p': of(({ topP }) => topP),
    'sampling.min_p': of(({ minP = 0 }) => minP),
    'sampling.top_k': int64(
      parts.map(({ sampling }) => sampling.topK),
      column,
    ),
  };
}

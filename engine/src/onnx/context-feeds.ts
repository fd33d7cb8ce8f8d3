import type { SamplingParams } from '@ptp/protocol/sampling-params';
import type { ContextSlot } from '../types.ts';
import { type Feeds, float32, int64, type Results } from './tensors.ts';

/** The inputs and outputs that a kind of graph has besides those of the context and its caches. */
export interface GraphIo<Slot extends ContextSlot, Output> {
  /**
   * @param graphSlots slots of the graph, at least `slots.length`
   * @param cachedTokens the token of each cache row of a sequence
   */
  feeds(slots: readonly Slot[], graphSlots: number, cachedTokens: (slot: Slot) => Int32Array): Feeds;
  outputs(slots: readonly Slot[], results: Results): Output[];
}

/** Tokens of one slot, behind `past` rows of its cache. */
export interface Context {
  readonly past: number;
  readonly tokens: readonly number[];
}

/** Tokens of a slot in the graph, at least 2: for a single row, onnxruntime uses kernels that round differently. */
export function paddedLength({ tokens }: Pick<Context, 'tokens'>): number {
  return Math.max(2, tokens.length);
}

/** Pads a slot to 2 tokens. The padding comes last, so no other token attends to it; its own results are discarded. */
export function padded({ past, tokens }: Context): Context {
  return tokens.length > 1 ? { past, tokens } : { past, tokens: [tokens[0] ?? 0, 0] };
}

/** Occupies a slot of the graph that no sequence uses. */
export const idleContext: Context = { past: 0, tokens: [0, 0] };

/** Conditions of rows and slots whose results are discarded. */
export const idleSampling: SamplingParams = { temperature: 0, topK: 0, topP: 1 };

/**
 * Feeds of the packed context tokens: ids, pos, splits, mask_{i}. See `target_graph` in training/src/ptp_train/export.
 */
export function contextFeeds(slots: readonly Context[]): Feeds {
  const ids = slots.flatMap((slot) => slot.tokens);
  const positions = slots.flatMap(({ past, tokens }) => tokens.map((_, i) => past + i));
  const feeds: Feeds = { ids: int64(ids, [1, ids.length]), pos: int64(positions, [1, ids.length]) };
  for (const [i, { past, tokens }] of slots.entries()) {
    feeds[`mask_${i}`] = float32(causalMask(past, tokens.length), [tokens.length, past + tokens.length]);
  }
  if (slots.length > 1) feeds.splits = int64(slots.map((slot) => slot.tokens.length));
  return feeds;
}

/**
 * [length, past + length], 0 where a token attends to another, -Infinity elsewhere: all of the past, and up to itself.
 */
export function causalMask(past: number, length: number): Float32Array {
  const width = past + length;
  const mask = new Float32Array(length * width);
  for (let row = 0; row < length; row++) {
    mask.fill(Number.NEGATIVE_INFINITY, row * width + past + row + 1, (row + 1) * width);
  }
  return mask;
}

import type { SamplingParams } from '@ptp/protocol/sampling-params';
import type { ContextSlot, DraftSlot } from '../types.ts';
import { type Feeds, float32, floatsOf, int64, intsOf, type Results } from './tensors.ts';

/** Inputs and outputs of a graph, except the inputs and outputs for the context and its caches. */
export interface GraphIo<Slot extends ContextSlot, Output> {
  /** Slot for places of the graph that no sequence uses. */
  readonly idle: Slot;
  /**
   * Builds the inputs.
   *
   * @param slots slots of the run, one for each place of the graph
   * @param cachedTokens function that returns the token of each cache row of a slot's sequence
   */
  feeds(slots: readonly Slot[], cachedTokens: (slot: Slot) => Int32Array | undefined): Feeds;
  /**
   * Returns inputs with which the run must be repeated, or undefined if its results are final. Absent if they always are.
   */
  repeat?(slots: readonly Slot[], results: Results): Feeds | undefined;
  /** Reads the outputs. The results of idle slots come after the results of `slots` and are ignored. */
  outputs(slots: readonly Slot[], results: Results): Output[];
}

/** New tokens of one slot and the cache row at which they start. */
export type Context = Pick<ContextSlot, 'at' | 'tokens'>;

/** Minimum number of rows of a slot, because onnxruntime's floating-point results differ for a single row. */
export const MIN_ROWS = 2;

/**
 * Returns the number of rows a slot occupies in the graph.
 *
 * @param minRows 1 for graphs whose results for a single row do not differ (`OnnxModel.minRows`)
 */
export function paddedLength({ tokens }: Pick<Context, 'tokens'>, minRows: number): number {
  return Math.max(minRows, tokens.length);
}

/**
 * Pads a slot to at least `minRows` tokens. The padding comes last, so no other token attends to it, and the results
 * for it are discarded.
 */
export function padded({ at, tokens }: Context, minRows: number): Context {
  return tokens.length < minRows ? { at, tokens: [tokens[0] ?? 0, 0] } : { at, tokens };
}

/** Context of an idle slot. */
export const idleContext: ContextSlot = { sequence: -1, at: 0, tokens: [0, 0] };

/** Sampling parameters of rows and slots with discarded results. */
export const idleSampling: SamplingParams = { temperature: 0, topK: 0, topP: 1 };

/** Draft slot for places of the graph that no sequence uses. */
export const idleDraft: DraftSlot = {
  ...idleContext,
  sampling: idleSampling,
  uniforms: { seed: 0n, offset: 0 },
  branches: [],
};

/** Builds the feeds ids, pos and splits of the packed tokens. See `contextFeeds`. */
export function tokenFeeds(slots: readonly Context[], places = slots.length): Feeds {
  const ids = slots.flatMap(({ tokens }) => tokens);
  const positions = slots.flatMap(({ at, tokens }) => tokens.map((_, i) => at + i));
  const feeds: Feeds = { ids: int64(ids, [1, ids.length]), pos: int64(positions, [1, ids.length]) };
  if (places > 1) feeds.splits = int64(Array.from({ length: places }, (_, i) => slots[i]?.tokens.length ?? 0));
  return feeds;
}

/**
 * Builds the feeds ids, pos, splits and mask_{i} of the packed tokens. See `target_graph` in
 * training/src/ptp_train/export.
 *
 * @param places the number of slots of the graph; those after `slots` are empty
 */
export function contextFeeds(slots: readonly Context[], places = slots.length): Feeds {
  const feeds = tokenFeeds(slots, places);
  for (const [i, { at, tokens }] of slots.entries()) {
    feeds[`mask_${i}`] = float32(causalMask(at, tokens.length), [tokens.length, at + tokens.length]);
  }
  for (let i = slots.length; i < places; i++) feeds[`mask_${i}`] = float32(new Float32Array(), [0, 0]);
  return feeds;
}

/** Builds the mask [length, past + length]: a token attends to all past rows and to the slot's tokens up to itself. */
export function causalMask(past: number, length: number): Float32Array {
  const width = past + length;
  const mask = new Float32Array(length * width);
  for (let row = 0; row < length; row++) {
    mask.fill(Number.NEGATIVE_INFINITY, row * width + past + row + 1, (row + 1) * width);
  }
  return mask;
}

/** Builds the feeds of sampling parameters, one row per item. */
export function samplingFeeds(
  items: readonly { readonly sampling: SamplingParams }[],
  dims: readonly number[],
  prefix = '',
): Feeds {
  return {
    [`${prefix}temperature`]: floatsOf(items, ({ sampling }) => sampling.temperature, dims),
    [`${prefix}top_p`]: floatsOf(items, ({ sampling }) => sampling.topP, dims),
    [`${prefix}min_p`]: floatsOf(items, ({ sampling }) => sampling.minP ?? 0, dims),
    [`${prefix}top_k`]: intsOf(items, ({ sampling }) => sampling.topK, dims),
  };
}

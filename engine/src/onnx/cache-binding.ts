import type { ContextSlot, SequenceId } from '../types.ts';
import { paddedLength } from './context-feeds.ts';
import type { CacheNumbers, SequenceCache } from './kv-cache.ts';
import type { OnnxModel } from './model.ts';
import { type Feed, type Feeds, float16, float32, floatResult, type Results } from './tensors.ts';

/** Connects the caches of a run's sequences with the inputs and outputs of a graph. */
export interface CacheBinding {
  /** Builds the inputs. Slots without a cache are empty. */
  feeds(slots: readonly ContextSlot[], places: number): Feeds;
  /** Returns the outputs that the graph writes into the caches. */
  outputs(slots: readonly ContextSlot[]): Feeds;
  /** Adds the new rows to the caches, without the rows of padding. */
  finish(slots: readonly ContextSlot[], results: Results): void;
}

type Caches = ReadonlyMap<SequenceId, SequenceCache>;

const nothing = new Float32Array();
const nothingInHalf = new Uint16Array();

function numbers(data: CacheNumbers, dims: readonly number[]): Feed {
  return data instanceof Uint16Array ? float16(data, dims) : float32(data, dims);
}

/** Returns the binding that fits a model's graphs. */
export function bindCaches(model: OnnxModel, caches: Caches): CacheBinding {
  const layers = [...Array(model.layers).keys()];
  return model.inPlace ? extendedInPlace(model, layers, caches) : appendedRows(model, layers, caches);
}

/**
 * Graphs that read k{layer}_{slot} and v{layer}_{slot}, whole caches with room for the new rows, and write
 * nk{layer}_{slot} and nv{layer}_{slot}, which are views of this room. The past is never copied. See `attend_in_place` in
 * training/src/ptp_train/export.
 */
function extendedInPlace(
  { heads, rowWidth, minRows, halfCaches }: OnnxModel,
  layers: readonly number[],
  caches: Caches,
): CacheBinding {
  const dims = (rows: number) => [rows, heads, rowWidth / heads];
  const empty = halfCaches ? nothingInHalf : nothing;
  return {
    feeds(slots, places) {
      const feeds: Feeds = {};
      for (let i = 0; i < places; i++) {
        const slot = slots[i];
        const cache = slot && caches.get(slot.sequence);
        const end = slot ? slot.at + paddedLength(slot, minRows) : 0;
        for (const layer of layers) {
          feeds[`k${layer}_${i}`] = numbers(cache?.view('keys', layer, 0, end) ?? empty, dims(end));
          feeds[`v${layer}_${i}`] = numbers(cache?.view('values', layer, 0, end) ?? empty, dims(end));
        }
      }
      return feeds;
    },
    outputs(slots) {
      const outputs: Feeds = {};
      for (const [i, slot] of slots.entries()) {
        const cache = caches.get(slot.sequence) as SequenceCache;
        const size = paddedLength(slot, minRows);
        const [start, end] = [slot.at, slot.at + size];
        for (const layer of layers) {
          outputs[`nk${layer}_${i}`] = numbers(cache.view('keys', layer, start, end), [1, size, rowWidth]);
          outputs[`nv${layer}_${i}`] = numbers(cache.view('values', layer, start, end), [1, size, rowWidth]);
        }
      }
      return outputs;
    },
    finish(slots) {
      for (const { sequence, tokens } of slots) caches.get(sequence)?.extend(tokens);
    },
  };
}

/**
 * Graphs that read pk{layer}_{slot} and pv{layer}_{slot}, which are views of the valid rows, and return all new rows in
 * nk{layer} and nv{layer}.
 */
function appendedRows({ rowWidth, minRows }: OnnxModel, layers: readonly number[], caches: Caches): CacheBinding {
  return {
    feeds(slots) {
      const feeds: Feeds = {};
      for (const [i, { sequence }] of slots.entries()) {
        const cache = caches.get(sequence);
        const rows = cache?.rows ?? 0;
        for (const layer of layers) {
          feeds[`pk${layer}_${i}`] = numbers(cache?.view('keys', layer, 0, rows) ?? nothing, [1, rows, rowWidth]);
          feeds[`pv${layer}_${i}`] = numbers(cache?.view('values', layer, 0, rows) ?? nothing, [1, rows, rowWidth]);
        }
      }
      return feeds;
    },
    outputs: () => ({}),
    finish(slots, results) {
      const keys = layers.map((layer) => floatResult(results, `nk${layer}`));
      const values = layers.map((layer) => floatResult(results, `nv${layer}`));
      let start = 0;
      for (const slot of slots) {
        caches.get(slot.sequence)?.append(slot.tokens, { keys, values }, start);
        start += paddedLength(slot, minRows);
      }
    },
  };
}

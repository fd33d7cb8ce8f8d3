import type { ContextSlot, SequenceId } from '../types.ts';
import { paddedLength } from './context-feeds.ts';
import { keptOnDevice } from './device-cache.ts';
import { type CacheNumbers, type KvCache, SequenceCache } from './kv-cache.ts';
import type { OnnxModel } from './model.ts';
import { type DeviceFeeds, type Feed, type Feeds, float16, float32, floatResult, type Results } from './tensors.ts';

/** Connects the caches of a run's sequences with the inputs and outputs of a graph. */
export interface CacheBinding {
  /** Creates an empty cache. */
  create(): KvCache;
  /** Builds the inputs. Slots without a cache are empty. */
  feeds(slots: readonly ContextSlot[], places: number): DeviceFeeds;
  /** Returns the outputs that the graph writes into the caches. */
  outputs(slots: readonly ContextSlot[]): Feeds;
  /** Adds the new rows to the caches, without the rows of padding. */
  finish(slots: readonly ContextSlot[], results: Results): void;
}

export type Caches<Cache extends KvCache = SequenceCache> = ReadonlyMap<SequenceId, Cache>;

const emptyFloat32 = new Float32Array();
const emptyFloat16 = new Uint16Array();

function numbers(data: CacheNumbers, dims: readonly number[]): Feed {
  return data instanceof Uint16Array ? float16(data, dims) : float32(data, dims);
}

/** Returns the binding that fits a model's graphs. */
export function bindCaches(model: OnnxModel, caches: Caches<KvCache>): CacheBinding {
  if (model.onDevice) return keptOnDevice(model, caches);
  const layers = [...Array(model.layers).keys()];
  const { layers: count, rowWidth, info, halfCaches } = model;
  const Numbers = halfCaches ? Uint16Array : Float32Array;
  const create = () => new SequenceCache(count, rowWidth, info.contextLength + 1, Numbers);
  const own = caches as Caches;
  return { create, ...(model.inPlace ? extendedInPlace(model, layers, own) : appendedRows(model, layers, own)) };
}

type Binding = Omit<CacheBinding, 'create'>;

/**
 * Graphs that read k{layer}_{slot} and v{layer}_{slot}, whole caches with room for the new rows, and write
 * nk{layer}_{slot} and nv{layer}_{slot}, which are views of this room. The past is never copied. See `attend_in_place` in
 * training/src/ptp_train/export.
 */
function extendedInPlace(
  { heads, rowWidth, minRows, halfCaches }: OnnxModel,
  layers: readonly number[],
  caches: Caches,
): Binding {
  const dims = (rows: number) => [rows, heads, rowWidth / heads];
  const empty = halfCaches ? emptyFloat16 : emptyFloat32;
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
function appendedRows({ rowWidth, minRows }: OnnxModel, layers: readonly number[], caches: Caches): Binding {
  return {
    feeds(slots) {
      const feeds: Feeds = {};
      for (const [i, { sequence }] of slots.entries()) {
        const cache = caches.get(sequence);
        const rows = cache?.rows ?? 0;
        for (const layer of layers) {
          feeds[`pk${layer}_${i}`] = numbers(cache?.view('keys', layer, 0, rows) ?? emptyFloat32, [1, rows, rowWidth]);
          feeds[`pv${layer}_${i}`] = numbers(cache?.view('values', layer, 0, rows) ?? emptyFloat32, [
            1,
            rows,
            rowWidth,
          ]);
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

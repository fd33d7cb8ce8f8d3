import { Tensor } from 'onnxruntime-node';
import type { CacheBinding, Caches } from './cache-binding.ts';
import { paddedLength } from './context-feeds.ts';
import type { KvCache } from './kv-cache.ts';
import type { OnnxModel } from './model.ts';
import { type DeviceFeeds, int32, type Results } from './tensors.ts';

type Sizes = Pick<OnnxModel, 'layers' | 'heads' | 'rowWidth'>;

/** Keys and values of all layers, [1, heads, capacity, width] each. No run changes them, so several caches can own them. */
class DeviceTensors {
  readonly keys: readonly Tensor[];
  readonly values: readonly Tensor[];
  #owners = 1;

  constructor(keys: readonly Tensor[], values: readonly Tensor[]) {
    this.keys = keys;
    this.values = values;
  }

  /** Returns tensors with room for one row, in the memory of the CPU. */
  static empty({ layers, heads, rowWidth }: Sizes): DeviceTensors {
    const dims = [1, heads, 1, rowWidth / heads];
    const create = () => Array.from({ length: layers }, () => new Tensor('float32', new Float32Array(rowWidth), dims));
    return new DeviceTensors(create(), create());
  }

  get capacity(): number {
    return this.keys[0]?.dims[2] ?? 0;
  }

  shared(): this {
    this.#owners++;
    return this;
  }

  release(): void {
    this.#owners--;
    if (this.#owners === 0) for (const tensor of [...this.keys, ...this.values]) tensor.dispose();
  }
}

/** KV cache of one sequence on the GPU. A run copies it there and adds the new rows, so rows never cross the bus. */
export class DeviceCache implements KvCache {
  tokens = new Int32Array();
  rows = 0;
  readonly #sizes: Sizes;
  #tensors: DeviceTensors;

  constructor(sizes: Sizes) {
    this.#sizes = sizes;
    this.#tensors = DeviceTensors.empty(sizes);
  }

  get tensors(): DeviceTensors {
    return this.#tensors;
  }

  get bytes(): number {
    const { layers, rowWidth } = this.#sizes;
    return 2 * layers * rowWidth * Float32Array.BYTES_PER_ELEMENT * this.#tensors.capacity;
  }

  prepare(at: number, count: number): void {
    if (at > this.rows) throw new RangeError(`row ${at} must be at most the number of rows, ${this.rows}`);
    this.rows = at;
    if (at + count <= this.tokens.length) return;
    const tokens = new Int32Array(2 * (at + count));
    tokens.set(this.tokens.subarray(0, at));
    this.tokens = tokens;
  }

  copyFrom(other: DeviceCache, count: number): void {
    this.extend([...other.tokens.subarray(0, count)], other.tensors.shared());
  }

  /** Removes all rows, because tensors on the GPU cannot be cut. */
  shrink(): void {
    this.release();
    this.#tensors = DeviceTensors.empty(this.#sizes);
    this.rows = 0;
  }

  release(): void {
    this.#tensors.release();
  }

  /** Appends rows by replacing the tensors. */
  extend(tokens: readonly number[], tensors: DeviceTensors): void {
    this.release();
    this.#tensors = tensors;
    this.tokens.set(tokens, this.rows);
    this.rows += tokens.length;
  }
}

/**
 * Binds graphs that take whole caches pk{layer}_{slot} and pv{layer}_{slot}, and return them with the new rows in
 * nk{layer}_{slot} and nv{layer}_{slot}. See `gpu_target_graph` in training/src/ptp_train/export.
 */
export function keptOnDevice(model: OnnxModel, caches: Caches<KvCache>): CacheBinding {
  const own = caches as Caches<DeviceCache>;
  const idle = DeviceTensors.empty(model);
  return {
    create: () => new DeviceCache(model),
    feeds(slots) {
      const feeds: DeviceFeeds = {};
      for (const [i, slot] of slots.entries()) {
        const { keys, values } = own.get(slot.sequence)?.tensors ?? idle;
        const total = slot.at + paddedLength(slot, model.minRows);
        feeds[`length_${i}`] = int32([total - 1]);
        feeds[`total_${i}`] = int32([total], []);
        for (const [layer, tensor] of keys.entries()) feeds[`pk${layer}_${i}`] = tensor;
        for (const [layer, tensor] of values.entries()) feeds[`pv${layer}_${i}`] = tensor;
      }
      return feeds;
    },
    outputs: () => ({}),
    finish(slots, results) {
      const extended = { ...results };
      for (const [i, { sequence, tokens }] of slots.entries()) {
        const take = (name: string) => {
          const tensor = extended[name] as Tensor;
          delete extended[name];
          return tensor;
        };
        const layers = [...Array(model.layers).keys()];
        const keys = layers.map((layer) => take(`nk${layer}_${i}`));
        const values = layers.map((layer) => take(`nv${layer}_${i}`));
        own.get(sequence)?.extend(tokens, new DeviceTensors(keys, values));
      }
      disposeCaches(extended); // Caches of idle slots.
    },
  };
}

/** Returns the locations of the outputs: only the results of the sampler leave the GPU. */
export function cacheOutputs({ layers }: Sizes, slots: number): Record<string, 'cpu' | 'gpu-buffer'> {
  const locations: Record<string, 'cpu' | 'gpu-buffer'> = { picked: 'cpu' };
  for (let layer = 0; layer < layers; layer++) {
    for (let i = 0; i < slots; i++) {
      locations[`nk${layer}_${i}`] = 'gpu-buffer';
      locations[`nv${layer}_${i}`] = 'gpu-buffer';
    }
  }
  return locations;
}

/** Frees the caches that a run has returned. */
export function disposeCaches(results: Results): void {
  for (const [name, result] of Object.entries(results)) if (/^n[kv]\d/.test(name)) (result as Tensor).dispose();
}

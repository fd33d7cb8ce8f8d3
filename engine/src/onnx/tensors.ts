import type { Tensor } from 'onnxruntime-node';

/** Input of a graph. Float16 numbers are stored as their bits. */
export type Feed =
  | { readonly type: 'float16'; readonly data: Uint16Array; readonly dims: readonly number[] }
  | { readonly type: 'float32'; readonly data: Float32Array; readonly dims: readonly number[] }
  | { readonly type: 'int64'; readonly data: BigInt64Array; readonly dims: readonly number[] }
  | { readonly type: 'int32'; readonly data: Int32Array; readonly dims: readonly number[] };
export type Feeds = Record<string, Feed>;

/** Inputs that may already be on the GPU. */
export type DeviceFeeds = Record<string, Feed | Tensor>;

export function float32(data: Float32Array, dims: readonly number[]): Feed {
  return { type: 'float32', data, dims };
}

export function float16(data: Uint16Array, dims: readonly number[]): Feed {
  return { type: 'float16', data, dims };
}

export function int64(values: readonly number[], dims: readonly number[] = [values.length]): Feed {
  return { type: 'int64', data: BigInt64Array.from(values, BigInt), dims };
}

export function int32(values: readonly number[], dims: readonly number[] = [values.length]): Feed {
  return { type: 'int32', data: Int32Array.from(values), dims };
}

/** Creates an input with one number per item. */
export function floatsOf<T>(items: readonly T[], value: (item: T) => number, dims: readonly number[]): Feed {
  return float32(Float32Array.from(items, value), dims);
}

export function intsOf<T>(items: readonly T[], value: (item: T) => number, dims?: readonly number[]): Feed {
  return int64(items.map(value), dims);
}

/** Concatenates the arrays and fills the rest with zeros. */
export function concatenated(arrays: readonly Float32Array[], dims: readonly number[]): Feed {
  const data = new Float32Array(dims.reduce((product, size) => product * size, 1));
  let start = 0;
  for (const array of arrays) {
    data.set(array, start);
    start += array.length;
  }
  return float32(data, dims);
}

/** Outputs of a graph, keyed by name. */
export type Results = Readonly<Record<string, { readonly data: unknown } | undefined>>;

export function floatResult(results: Results, name: string): Float32Array {
  return results[name]?.data as Float32Array;
}

/** Returns an output of ids or counts, which fit into int32. */
export function intResult(results: Results, name: string): Int32Array {
  return Int32Array.from(results[name]?.data as ArrayLike<bigint | number>, Number);
}

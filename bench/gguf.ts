import { open } from 'node:fs/promises';
import { endianness } from 'node:os';
import type { Tensor } from './onnx-weights.ts';

/** A metadata value: what it is written as is said for numbers. */
type Single =
  | string
  | boolean
  | { readonly uint32: number }
  | { readonly int32: number }
  | { readonly float32: number };
/** A list's values are all of one type. */
export type Value = Single | readonly Single[];

/** Tensors start at multiples of this many bytes. */
export const ALIGNMENT = 32;
/** Type numbers of metadata values, and of a float32 tensor. */
const UINT32 = 4;
const INT32 = 5;
const FLOAT32 = 6;
const BOOL = 7;
const STRING = 8;
const ARRAY = 9;
const F32 = 0;

/**
 * Writes a GGUF file, version 3, of float32 tensors (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).
 *
 * @throws Error on a big-endian machine, whose floats would have to be turned around
 */
export async function writeGguf(
  path: string,
  metadata: Readonly<Record<string, Value>>,
  tensors: ReadonlyMap<string, Tensor>,
): Promise<void> {
  if (endianness() !== 'LE') throw new Error('GGUF files are written on little-endian machines only');
  const file = await open(path, 'w');
  try {
    await file.write(header(metadata, tensors));
    for (const { data } of tensors.values()) {
      await file.write(Buffer.from(data.buffer, data.byteOffset, data.byteLength));
      await file.write(padding(data.byteLength));
    }
  } finally {
    await file.close();
  }
}

function header(metadata: Readonly<Record<string, Value>>, tensors: ReadonlyMap<string, Tensor>): Buffer {
  const entries = Object.entries(metadata);
  const parts = [Buffer.from('GGUF'), uint32(3), uint64(tensors.size), uint64(entries.length)];
  for (const [key, value] of entries) parts.push(string(key), typed(value));
  let offset = 0;
  for (const [name, { shape, data }] of tensors) {
    // dimensions stand innermost first
    const dimensions = [...shape].reverse().map(uint64);
    parts.push(string(name), uint32(shape.length), ...dimensions, uint32(F32), uint64(offset));
    offset += data.byteLength + padding(data.byteLength).length;
  }
  const bytes = Buffer.concat(parts);
  return Buffer.concat([bytes, padding(bytes.length)]);
}

function typed(value: Value): Buffer {
  if (!Array.isArray(value)) return Buffer.concat([uint32(typeOf(value as Single)), single(value as Single)]);
  const items = value as readonly Single[];
  const type = typeOf(items[0] ?? '');
  return Buffer.concat([uint32(ARRAY), uint32(type), uint64(items.length), ...items.map(single)]);
}

function typeOf(value: Single): number {
  if (typeof value === 'string') return STRING;
  if (typeof value === 'boolean') return BOOL;
  if ('uint32' in value) return UINT32;
  return 'int32' in value ? INT32 : FLOAT32;
}

function single(value: Single): Buffer {
  if (typeof value === 'string') return string(value);
  if (typeof value === 'boolean') return Buffer.from([Number(value)]);
  if ('uint32' in value) return uint32(value.uint32);
  const bytes = Buffer.alloc(4);
  if ('int32' in value) bytes.writeInt32LE(value.int32);
  else bytes.writeFloatLE(value.float32);
  return bytes;
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

function uint64(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}

function string(text: string): Buffer {
  const bytes = Buffer.from(text);
  return Buffer.concat([uint64(bytes.length), bytes]);
}

const padding = (length: number): Buffer => Buffer.alloc((ALIGNMENT - (length % ALIGNMENT)) % ALIGNMENT);

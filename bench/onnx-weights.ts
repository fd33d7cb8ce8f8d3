/// <reference lib="esnext.float16" />
import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { BinaryReader } from '@bufbuild/protobuf/wire';

/** A float tensor, row-major. */
export interface Tensor {
  /** Outermost first. */
  readonly shape: readonly number[];
  readonly data: Float32Array;
}

/** What a TensorProto says; see onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto). */
interface Stored {
  name: string;
  type: number;
  shape: number[];
  raw: Uint8Array | undefined;
  external: Map<string, string>;
}

/** TensorProto.DataType. */
const FLOAT = 1;
const FLOAT16 = 10;

/**
 * The float parameters of an ONNX graph and of the weight files beside it, float16 widened to float32, without the `.stored`
 * that training/src/ptp_train/export/graphs/graph.py adds to the names of narrowed ones. Tensors of other types are left out.
 *
 * @throws Error if a file cannot be read or a tensor has not as many bytes as its shape asks for
 */
export async function readWeights(path: string): Promise<Map<string, Tensor>> {
  const tensors = new Map<string, Tensor>();
  const files = new Map<string, Promise<Uint8Array>>();
  for (const stored of initializers(await readFile(path))) {
    if (stored.type !== FLOAT && stored.type !== FLOAT16) continue;
    const location = stored.external.get('location');
    if (location && !files.has(location)) files.set(location, readFile(join(dirname(path), location)));
    const file = location ? await files.get(location) : undefined;
    tensors.set(stored.name.replace(/\.stored$/, ''), { shape: stored.shape, data: floats(stored, file) });
  }
  return tensors;
}

function floats({ name, type, shape, raw, external }: Stored, file: Uint8Array | undefined): Float32Array {
  const offset = Number(external.get('offset') ?? 0);
  const bytes = file ? file.subarray(offset, offset + Number(external.get('length') ?? file.length)) : raw;
  const length = shape.reduce((a, b) => a * b, 1) * (type === FLOAT16 ? 2 : 4);
  if (bytes?.length !== length) throw new Error(`\`${name}\` must have ${length} bytes, has ${bytes?.length ?? 0}`);
  const { buffer } = new Uint8Array(bytes); // a copy, so aligned
  return type === FLOAT16 ? Float32Array.from(new Float16Array(buffer)) : new Float32Array(buffer);
}

/** ModelProto.graph (7), GraphProto.initializer (5). */
function initializers(model: Uint8Array): Stored[] {
  return fieldsOf(model, 7).flatMap((graph) => fieldsOf(graph, 5).map(tensorProto));
}

function tensorProto(bytes: Uint8Array): Stored {
  const text = (field: number, message = bytes) => Buffer.from(fieldsOf(message, field)[0] ?? []).toString();
  const entries = fieldsOf(bytes, 13).map((entry): [string, string] => [text(1, entry), text(2, entry)]);
  return {
    name: text(8),
    type: numbersOf(bytes, 2)[0] ?? 0,
    shape: numbersOf(bytes, 1),
    raw: fieldsOf(bytes, 9)[0],
    external: new Map(entries),
  };
}

/** All occurrences of a field of messages, strings or bytes. */
function fieldsOf(message: Uint8Array, field: number): Uint8Array[] {
  const found: Uint8Array[] = [];
  eachField(message, (number, reader, wireType) => {
    if (number !== field || wireType !== 2) return false;
    found.push(reader.bytes());
    return true;
  });
  return found;
}

/** All values of a field of integers, packed or not. */
function numbersOf(message: Uint8Array, field: number): number[] {
  const found: number[] = [];
  eachField(message, (number, reader, wireType) => {
    if (number !== field) return false;
    const end = wireType === 2 ? reader.uint32() + reader.pos : reader.pos + 1;
    while (reader.pos < end) found.push(Number(reader.int64()));
    return true;
  });
  return found;
}

/** `take` reads a field's value and returns true, or leaves it to be skipped. */
function eachField(
  message: Uint8Array,
  take: (field: number, reader: BinaryReader, wireType: number) => boolean,
): void {
  const reader = new BinaryReader(message);
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag();
    if (!take(field, reader, wireType)) reader.skip(wireType, field);
  }
}

import { open, writeFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire';
import type { Tensor } from './onnx-weights.ts';

export interface Node {
  readonly op: string;
  /** '' for one that is left out. */
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly domain?: string;
  readonly attributes?: Readonly<Record<string, number | { readonly float: number }>>;
}

/** An input or output; dimensions that vary have names. */
export interface Value {
  readonly name: string;
  readonly type: 'float' | 'int64';
  readonly shape: readonly (number | string)[];
}

export interface Graph {
  readonly nodes: readonly Node[];
  readonly inputs: readonly Value[];
  readonly outputs: readonly Value[];
  readonly parameters: ReadonlyMap<string, Tensor>;
  /** Of type int64: a scalar or a vector. */
  readonly constants: Readonly<Record<string, number | readonly number[]>>;
}

/** Versions of the format and of the operators, and numbers in enums, of onnx.proto. */
const IR_VERSION = 10;
const OPSETS = { '': 21, 'com.microsoft': 1 };
const DATA_TYPE = { float: 1, int64: 7 };
const ATTRIBUTE_TYPE = { float: 1, int: 2 };
const EXTERNAL = 1;

/** A field's number and value. Integers become int64, which all of onnx.proto's integers and enums are alike on the wire. */
type Field = readonly [number, string | number | Uint8Array | { readonly float: number }];

/**
 * Writes an ONNX model (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto) with its parameters in a file beside it,
 * `path` + `_data`, because a protobuf message holds less than 2 GiB.
 */
export async function writeOnnx(path: string, graph: Graph): Promise<void> {
  const data = `${path}_data`;
  const file = await open(data, 'w');
  const initializers: Uint8Array[] = [];
  try {
    let offset = 0;
    for (const [name, tensor] of graph.parameters) {
      const bytes = bytesOf(tensor.data);
      initializers.push(external(name, tensor, { location: basename(data), offset, length: bytes.length }));
      await file.writeFile(bytes);
      offset += bytes.length;
    }
  } finally {
    await file.close();
  }
  initializers.push(...Object.entries(graph.constants).map(([name, value]) => constant(name, value)));
  await writeFile(path, model(graph, initializers));
}

/** ModelProto. */
function model({ nodes, inputs, outputs }: Graph, initializers: readonly Uint8Array[]): Uint8Array {
  const graph = message([
    ...nodes.map((node): Field => [1, nodeProto(node)]),
    [2, 'model'],
    ...initializers.map((tensor): Field => [5, tensor]),
    ...inputs.map((value): Field => [11, valueInfo(value)]),
    ...outputs.map((value): Field => [12, valueInfo(value)]),
  ]);
  const opsets = Object.entries(OPSETS).map(
    ([domain, version]): Field => [
      8,
      message([
        [1, domain],
        [2, version],
      ]),
    ],
  );
  return message([[1, IR_VERSION], [7, graph], ...opsets]);
}

function nodeProto({ op, inputs, outputs, domain = '', attributes = {} }: Node): Uint8Array {
  return message([
    ...inputs.map((name): Field => [1, name]),
    ...outputs.map((name): Field => [2, name]),
    [3, `${op}:${outputs[0]}`],
    [4, op],
    ...Object.entries(attributes).map(([name, value]): Field => [5, attribute(name, value)]),
    [7, domain],
  ]);
}

function attribute(name: string, value: number | { readonly float: number }): Uint8Array {
  const isInt = typeof value === 'number';
  return message([
    [1, name],
    [isInt ? 3 : 2, value],
    [20, ATTRIBUTE_TYPE[isInt ? 'int' : 'float']],
  ]);
}

/** ValueInfoProto with a TypeProto.Tensor. */
function valueInfo({ name, type, shape }: Value): Uint8Array {
  const dimensions = shape.map((size): Field => [1, message([[typeof size === 'number' ? 1 : 2, size]])]);
  const tensor = message([
    [1, DATA_TYPE[type]],
    [2, message(dimensions)],
  ]);
  return message([
    [1, name],
    [2, message([[1, tensor]])],
  ]);
}

/** TensorProto of floats that stand in another file. */
function external(name: string, { shape }: Tensor, place: Readonly<Record<string, string | number>>): Uint8Array {
  const entries = Object.entries(place).map(
    ([key, value]): Field => [
      13,
      message([
        [1, key],
        [2, `${value}`],
      ]),
    ],
  );
  return message([
    ...shape.map((size): Field => [1, size]),
    [2, DATA_TYPE.float],
    [8, name],
    ...entries,
    [14, EXTERNAL],
  ]);
}

function constant(name: string, value: number | readonly number[]): Uint8Array {
  const shape: Field[] = typeof value === 'number' ? [] : [[1, value.length]];
  const data = BigInt64Array.from([value].flat().map(BigInt));
  return message([...shape, [2, DATA_TYPE.int64], [8, name], [9, bytesOf(data)]]);
}

function message(fields: Iterable<Field>): Uint8Array {
  const writer = new BinaryWriter();
  for (const [field, value] of fields) {
    if (typeof value === 'number') writer.tag(field, WireType.Varint).int64(value);
    else if (typeof value === 'string') writer.tag(field, WireType.LengthDelimited).string(value);
    else if (value instanceof Uint8Array) writer.tag(field, WireType.LengthDelimited).bytes(value);
    else writer.tag(field, WireType.Bit32).float(value.float);
  }
  return writer.finish();
}

const bytesOf = ({ buffer, byteOffset, byteLength }: ArrayBufferView): Uint8Array =>
  new Uint8Array(buffer, byteOffset, byteLength);

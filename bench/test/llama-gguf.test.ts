import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { ALIGNMENT } from '../gguf.ts';
import { writeLlama } from '../llama-gguf.ts';
import { readWeights, type Tensor } from '../onnx-weights.ts';

const tiny = new URL('../../test/models/tiny', import.meta.url).pathname;
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'ptp-gguf-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** A GGUF file read back by its specification, apart from our writer. */
function parse(file: Buffer) {
  let at = 0;
  /** Where the next `length` bytes begin. */
  const next = (length: number): number => {
    at += length;
    return at - length;
  };
  const u32 = () => file.readUInt32LE(next(4));
  const u64 = () => Number(file.readBigUInt64LE(next(8)));
  const text = (length = u64()) => {
    const from = next(length);
    return file.toString('utf8', from, from + length);
  };
  const value = (type: number): unknown => {
    if (type === 4) return u32();
    if (type === 5) return file.readInt32LE(next(4));
    if (type === 6) return file.readFloatLE(next(4));
    if (type === 7) return file[next(1)] === 1;
    if (type === 8) return text();
    if (type !== 9) throw new Error(`type ${type}`);
    const inner = u32();
    return Array.from({ length: u64() }, () => value(inner));
  };
  expect(text(4)).toBe('GGUF');
  expect(u32()).toBe(3);
  const [tensorCount, metadataCount] = [u64(), u64()];
  const metadata = new Map(Array.from({ length: metadataCount }, () => [text(), value(u32())] as const));
  const infos = Array.from({ length: tensorCount }, () => {
    const name = text();
    const shape = Array.from({ length: u32() }, u64).reverse();
    return { name, shape, type: u32(), offset: u64() };
  });
  const start = Math.ceil(at / ALIGNMENT) * ALIGNMENT;
  const tensors = new Map(
    infos.map(({ name, shape, type, offset }) => {
      expect(type).toBe(0);
      expect(offset % ALIGNMENT).toBe(0);
      const size = 4 * shape.reduce((a, b) => a * b, 1);
      const bytes = new Uint8Array(file.subarray(start + offset, start + offset + size));
      return [name, { shape, data: new Float32Array(bytes.buffer) }] as const;
    }),
  );
  return { metadata, tensors };
}

const row = ({ shape: [, width = 0], data }: Tensor, index: number) => [
  ...data.subarray(index * width, (index + 1) * width),
];
/** Column of [in, out], as our graphs have them. */
const column = ({ shape: [height = 0, width = 0], data }: Tensor, index: number) =>
  Array.from({ length: height }, (_, i) => data[i * width + index]);

test('the target of a folder stands in the file, number by number', async () => {
  const path = join(folder, 'tiny.gguf');
  const sizes = await writeLlama(tiny, path);
  const { metadata, tensors } = parse(await readFile(path));
  const weights = await readWeights(join(tiny, 'target.b1.onnx'));
  const ours = (name: string) => weights.get(name) as Tensor;
  expect(metadata.get('general.architecture')).toBe('llama');
  expect(metadata.get('llama.block_count')).toBe(sizes.layers);
  expect(metadata.get('llama.rope.freq_base')).toBeCloseTo(sizes.rope_theta);
  expect(metadata.get('tokenizer.ggml.tokens')).toHaveLength(sizes.vocab);
  expect(tensors.get('token_embd.weight')).toEqual(ours('embedding'));
  expect(tensors.size).toBe(2 + 9 * sizes.layers);

  const half = sizes.head_width / 2;
  const query = tensors.get('blk.1.attn_q.weight') as Tensor;
  const key = tensors.get('blk.1.attn_k.weight') as Tensor;
  const qkv = ours('layer1.qkv.weight');
  const queries = sizes.heads * sizes.head_width;
  // what we rotate as the pair (i, i + D/2) of a head, llama.cpp rotates as (2i, 2i + 1)
  for (const i of [0, 1, half - 1]) {
    const head = sizes.head_width * (sizes.heads - 1);
    expect(row(query, head + 2 * i)).toEqual(column(qkv, head + i));
    expect(row(query, head + 2 * i + 1)).toEqual(column(qkv, head + half + i));
    expect(row(key, 2 * i + 1)).toEqual(column(qkv, queries + half + i));
  }
  expect(row(tensors.get('blk.0.ffn_up.weight') as Tensor, 3)).toEqual(
    column(ours('layer0.gate_up.weight'), sizes.hidden + 3),
  );
  expect(row(tensors.get('blk.0.ffn_down.weight') as Tensor, 5)).toEqual(column(ours('layer0.down.weight'), 5));
});

test('a draft model has the first layers only', async () => {
  const path = join(folder, 'draft.gguf');
  await writeLlama(tiny, path, 1);
  const { metadata, tensors } = parse(await readFile(path));
  expect(metadata.get('llama.block_count')).toBe(1);
  expect([...tensors.keys()].filter((name) => name.startsWith('blk.'))).toHaveLength(9);
});

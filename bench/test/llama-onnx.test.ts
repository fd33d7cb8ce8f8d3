import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openTargetEngine } from '@ptp/engine/open-engine';
import { uniforms } from '@ptp/engine/sampling/uniforms';
import type { TargetEngine } from '@ptp/engine/types';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { writeLlamaOnnx } from '../llama-onnx.ts';
import { type LlamaTarget, readLlama } from '../llama-target.ts';
import { readWeights } from '../onnx-weights.ts';

const tiny = new URL('../../test/models/tiny', import.meta.url).pathname;
let folder: string;
let path: string;
let target: LlamaTarget;
let session: InferenceSession;
let ours: TargetEngine;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'ptp-onnx-'));
  path = join(folder, 'model.onnx');
  target = await readLlama(tiny);
  await writeLlamaOnnx(target, path);
  [session, ours] = await Promise.all([InferenceSession.create(path), openTargetEngine({ dir: tiny })]);
});
afterAll(async () => {
  await Promise.all([session.release(), ours.dispose()]);
  await rm(folder, { recursive: true, force: true });
});

type Values = Record<string, Tensor>;

const int64 = (values: readonly number[], shape: readonly number[]) =>
  new Tensor('int64', BigInt64Array.from(values, BigInt), shape);

/** As transformers.js has them before the first token. */
function emptyCache(): Values {
  const { layers, kv_heads, head_width } = target.sizes;
  const names = [...Array(layers).keys()].flatMap((n) =>
    ['key', 'value'].map((kind) => `past_key_values.${n}.${kind}`),
  );
  return Object.fromEntries(names.map((name) => [name, new Tensor('float32', [], [1, kv_heads, 0, head_width])]));
}

/** Reads tokens in chunks of the given length, the log-probabilities after the last `keep` of each chunk, 0 for all: [kept][V]. */
async function read(tokens: readonly number[], chunk: number, keep = 0): Promise<number[][]> {
  const rows: number[][] = [];
  let past = emptyCache();
  for (let at = 0; at < tokens.length; at += chunk) {
    const part = tokens.slice(at, at + chunk);
    const seen = at + part.length;
    const outputs = await session.run({
      input_ids: int64(part, [1, part.length]),
      attention_mask: int64(Array(seen).fill(1), [1, seen]),
      num_logits_to_keep: int64([keep], []),
      ...past,
    });
    const { logits, ...present } = outputs as Values & { logits: Tensor };
    expect(logits.dims).toEqual([1, keep || part.length, target.sizes.vocab]);
    rows.push(...logProbabilities(logits));
    past = Object.fromEntries(
      Object.entries(present).map(([name, tensor]) => [name.replace('present', 'past_key_values'), tensor]),
    );
  }
  return rows;
}

function logProbabilities({ data, dims }: Tensor): number[][] {
  const [, count = 0, width = 0] = dims;
  return Array.from({ length: count }, (_, i) => {
    const logits = [...(data as Float32Array).subarray(i * width, (i + 1) * width)];
    const sum = logits.reduce((total, logit) => total + Math.exp(logit), 0);
    return logits.map((logit) => logit - Math.log(sum));
  });
}

/** The same from our own graph. */
async function readOurs(tokens: readonly number[]): Promise<number[][]> {
  const { vocab } = target.sizes;
  const sequence = ours.open();
  const u = uniforms(1n, 0, tokens.length, ours.info.uniformsPerPosition);
  const sampling = { temperature: 0, topK: 0, topP: 1 };
  const { outputs } = await ours.run([{ sequence, at: 0, tokens, sampling, u, topCount: vocab }]);
  ours.close(sequence);
  const { topIds = [], topLogProbabilities = [] } = outputs[0] ?? {};
  return tokens.map((_, row) => {
    const values = new Array<number>(vocab);
    for (let i = row * vocab; i < (row + 1) * vocab; i++)
      values[topIds[i] as number] = topLogProbabilities[i] as number;
    return values;
  });
}

/** The largest difference between two tables. */
function distance(one: readonly number[][], other: readonly number[][]): number {
  expect(one).toHaveLength(other.length);
  return Math.max(...one.flatMap((row, i) => row.map((value, j) => Math.abs(value - (other[i]?.[j] as number)))));
}

const tokens = Array.from(uniforms(3n, 0, 40), (u) => Math.floor(u * 257));

test('the graph gives the probabilities of ours, read at once and in parts', async () => {
  const expected = await readOurs(tokens);
  for (const chunk of [40, 7, 1]) expect(distance(await read(tokens, chunk), expected)).toBeLessThan(1e-4);
});

test('only the last logits are computed where no others are wanted', async () => {
  const all = await read(tokens, 20);
  expect(distance(await read(tokens, 20, 1), [all[19], all[39]] as number[][])).toBeLessThan(1e-4);
});

test('the parameters stand in the file beside the graph, number by number', async () => {
  const written = await readWeights(path);
  expect(written.size).toBe(4 + 6 * target.sizes.layers);
  for (const [name, tensor] of written) expect(tensor).toEqual(target.parameter(name));
});

import { readFileSync, rmSync } from 'node:fs';
import { mkdtemp, readdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { SamplingParams } from '@ptp/protocol/sampling-params';
import type { Tensor } from 'onnxruntime-node';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { useSoftwareGpu, webgpuMissing } from '../../test/webgpu.ts';
import { DeviceCache } from '../src/onnx/device-cache.ts';
import { gpuTargetIo } from '../src/onnx/gpu-target-feeds.ts';
import { GraphRunner } from '../src/onnx/graph-runner.ts';
import { loadModel, type OnnxModel } from '../src/onnx/model.ts';
import { PrefixCache } from '../src/onnx/prefix-cache.ts';
import { openTargetEngine } from '../src/open-engine.ts';
import { randomTokens } from '../src/sampling/uniforms.ts';
import type { TargetEngine, TargetSlot } from '../src/types.ts';

// Targets exported for GPUs. onnxruntime has their operations on the CPU too, where runs take milliseconds.

const folder = (name: string) => fileURLToPath(new URL(`../../test/models/${name}`, import.meta.url));
const settings: SamplingParams[] = [
  { temperature: 0, topK: 0, topP: 1 },
  { temperature: 1, topK: 0, topP: 1 },
  { temperature: 0.8, topK: 20, topP: 0.9 },
  { temperature: 1.4, topK: 100, topP: 0.99, minP: 0.01 },
  // At temperature 8, the 64 most probable tokens are not enough.
  { temperature: 8, topK: 0, topP: 0.95 },
];
const uniforms = { seed: 4n, offset: 0 };
const adjustment = (token: number) => ({
  scaled: Int32Array.of(7),
  scale: 2,
  biased: Int32Array.of(token),
  biases: Float32Array.of(3),
});

test('a target for GPUs picks the same tokens as the target for CPUs', async () => {
  const engines = [folder('tiny'), folder('tiny-gpu')].map((dir) => openTargetEngine({ dir }));
  const [expected, own] = (await Promise.all(engines)) as [TargetEngine, TargetEngine];
  const outputs = async (engine: TargetEngine) => {
    const rows = settings.map((sampling, i) => ({ sequence: engine.open(), sampling, topCount: i }));
    const results = [];
    // The last runs roll back some rows.
    for (const [at, length] of [
      [0, 9],
      [9, 1],
      [6, 20],
      [25, 2],
    ] as const) {
      for (const some of [rows.slice(0, 3), rows.slice(3)]) {
        const slots = some.map((row, i) => {
          const adjust = Array.from({ length }, () => adjustment(i));
          return {
            ...row,
            at,
            tokens: randomTokens(BigInt(at + i), length, 257),
            uniforms,
            ...(at === 9 && { adjust }),
          };
        });
        results.push(...(await engine.run(slots)).outputs);
      }
    }
    return results;
  };
  const [cpu, gpu] = [await outputs(expected), await outputs(own)];
  expect(gpu.map(({ picks, topIds }) => ({ picks, topIds }))).toEqual(
    cpu.map(({ picks, topIds }) => ({ picks, topIds })),
  );
  for (const [i, { logProbabilities, topLogProbabilities = [] }] of gpu.entries()) {
    const values = [...(cpu[i]?.logProbabilities ?? []), ...(cpu[i]?.topLogProbabilities ?? [])];
    for (const [n, value] of [...logProbabilities, ...topLogProbabilities].entries()) {
      expect(value).toBeCloseTo(values[n] as number, 4);
    }
  }
  // On the CPU, its results depend on the batch, so the verdict of a self-check must not be kept.
  expect([expected, own].map(({ info }) => info.fingerprint !== undefined)).toEqual([true, false]);
  await Promise.all([expected.dispose(), own.dispose()]);
});

test('top-p that needs more tokens repeats the run with the whole vocabulary', () => {
  const io = gpuTargetIo(9, 257, 2);
  const slots = (sampling: SamplingParams) => [{ sequence: 1, at: 0, tokens: [1, 2], sampling, uniforms }];
  const nearest = (sampling: SamplingParams) => Number(io.feeds(slots(sampling), () => undefined).nearest?.data[0]);
  expect(settings.map(nearest)).toEqual([1, 1, 20, 100, 64]);
  const repeated = (sampling: SamplingParams, short: number) => {
    const run = io.feeds(slots(sampling), () => undefined).run?.data[0] as number;
    const data = Float32Array.of(5, -1, run, 0, 0, 6, -1, run + short, 0, 0);
    return io.repeat?.(slots(sampling), { picked: { data } });
  };
  const nucleus = { temperature: 1, topK: 0, topP: 0.9 };
  expect(repeated(nucleus, 0)).toBeUndefined();
  expect(repeated(nucleus, 1)?.nearest?.data).toEqual(BigInt64Array.of(257n));
  // The repeated run has a number of its own, which must come back too, and is not repeated again.
  const run = repeated(nucleus, 1)?.run?.data[0] as number;
  const again = (mark: number) => io.repeat?.(slots(nucleus), { picked: { data: Float32Array.of(5, -1, mark, 0, 0) } });
  expect(again(run + 1)).toBeUndefined();
  expect(() => again(run - 2)).toThrow('the GPU has lost the results of a run');
  // The number does not come back from a GPU that is lost.
  for (const wrong of [-2, 2]) expect(() => repeated(nucleus, wrong)).toThrow('the GPU has lost the results of a run');
  // A top-k of the whole vocabulary leaves nothing to repeat.
  expect(repeated({ temperature: 1, topK: 300, topP: 0.9 }, 1)).toBeUndefined();
});

const sizes = { layers: 1, heads: 2, rowWidth: 8 };

test('sequences with the same prefix share tensors until the last one is released', () => {
  const [first, second] = [new DeviceCache(sizes), new DeviceCache(sizes)];
  first.prepare(0, 4);
  first.extend([1, 2, 3, 4], new DeviceCache(sizes).tensors);
  second.prepare(0, 3);
  second.copyFrom(first, 3);
  expect([second.rows, ...second.tokens.subarray(0, 3)]).toEqual([3, 1, 2, 3]);
  const [tensor] = second.tensors.keys as [Tensor];
  first.release();
  expect(tensor.location).toBe('cpu');
  expect(() => second.prepare(5, 1)).toThrow('row 5 must be at most the number of rows, 3');
  second.release();
  expect(tensor.location).toBe('none');
});

test('the prefix cache releases what it drops', () => {
  const filled = (tokens: number[]) => {
    const cache = new DeviceCache(sizes);
    cache.prepare(0, tokens.length);
    cache.extend(tokens, new DeviceCache(sizes).tensors);
    return cache;
  };
  const isReleased = ({ tensors }: DeviceCache) => (tensors.keys[0] as Tensor).location === 'none';
  const kept = new PrefixCache<DeviceCache>(100);
  const caches = [filled([1, 2]), filled([1, 2, 3]), filled([1]), filled([4])];
  for (const cache of caches) kept.park(cache);
  expect(caches.map(isReleased)).toEqual([true, true, true, false]);
  const off = filled([1]);
  new PrefixCache<DeviceCache>(0).park(off);
  expect(isReleased(off)).toBe(true);
  // Tensors on a GPU cannot be cut, so a cache over the limit is dropped as a whole.
  const small = new PrefixCache<DeviceCache>(10);
  small.park(filled([1, 2]));
  expect([small.sequences, small.bytes, small.droppedRows]).toEqual([0, 0, 2]);
});

describe.skipIf(webgpuMissing)('on WebGPU', () => {
  let profiles = '';
  beforeAll(async () => {
    profiles = await mkdtemp(join(tmpdir(), 'ptp-profile-'));
  });
  afterAll(() => rmSync(profiles, { recursive: true }));

  test('no node runs on the CPU, a run reads the GPU once, and picks are those of the CPU', {
    timeout: 300_000,
  }, async () => {
    useSoftwareGpu();
    const { model } = await loadModel('target', { dir: folder('tiny-gpu') });
    const { layers, minRows, info } = model;
    const { uniformsPerPosition, vocabulary } = info;
    const options = { enableProfiling: true, profileFilePrefix: join(profiles, 'run') };
    const runner = await GraphRunner.load({ ...model, device: 'webgpu' } satisfies OnnxModel, options);
    const slots: TargetSlot[] = settings
      .slice(0, 4)
      .map((sampling, sequence) => ({ sequence, at: 0, tokens: [1, 2], sampling, uniforms }));
    const results = await runner.run(slots, gpuTargetIo(uniformsPerPosition, vocabulary, minRows));
    const onCpu = await openTargetEngine({ dir: folder('tiny') });
    const open = slots.map((slot) => ({ ...slot, sequence: onCpu.open() }));
    const expected = (await onCpu.run(open)).outputs.map(({ picks }) => picks);
    await onCpu.dispose();
    expect(results.map(({ picks }) => picks)).toEqual(expected);
    const tensors = [...runner.caches.values()].flatMap((cache) => Object.values((cache as DeviceCache).tensors.keys));
    expect(new Set(tensors.map(({ location }) => location))).toEqual(new Set(['gpu-buffer']));
    await runner.release();

    const [file = ''] = await readdir(profiles);
    const events: { args: { op_name?: string; provider?: string } }[] = JSON.parse(
      readFileSync(join(profiles, file), 'utf8'),
    );
    const nodes = events.flatMap(({ args: { op_name: op, provider } }) => (op && provider ? [{ op, provider }] : []));
    const on = (name: string) => nodes.filter(({ provider }) => provider === name).map(({ op }) => op);
    expect(on('WebGpuExecutionProvider').filter((op) => op === 'GroupQueryAttention')).toHaveLength(layers * 4);
    expect(on('CPUExecutionProvider')).toEqual([]);
    expect(nodes.filter(({ op }) => op === 'MemcpyToHost')).toEqual([]);
  });
});

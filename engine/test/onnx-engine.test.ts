import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { SamplingParams } from '@ptp/protocol/sampling-params';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { openDraftEngine, openTargetEngine } from '../src/onnx/engine.ts';
import { loadModel } from '../src/onnx/model.ts';
import { accept } from '../src/sampling/accept.ts';
import type { DraftEngine, TargetEngine } from '../src/types.ts';

const dir = fileURLToPath(new URL('../../test/models/tiny', import.meta.url));
const greedy: SamplingParams = { temperature: 0, topK: 0, topP: 1 };
const nucleus: SamplingParams = { temperature: 0.8, topK: 20, topP: 0.9 };
const settings: SamplingParams[] = [
  greedy,
  { temperature: 1, topK: 0, topP: 1 },
  nucleus,
  { temperature: 1.4, topK: 100, topP: 0.99 },
];

const source = { seed: 7n, offset: 0 };

let target: TargetEngine;
let drafter: DraftEngine;
beforeAll(async () => {
  [target, drafter] = await Promise.all([openTargetEngine({ dir }), openDraftEngine({ dir })]);
});
afterAll(() => Promise.all([target.dispose(), drafter.dispose()]));

test('the ONNX target keeps serving after a failed run', async () => {
  const [bad, good] = [target.open(), target.open()];
  const broken = { temperature: 1, topK: 0.5, topP: 1 };
  const runs = await Promise.allSettled([
    target.run([{ sequence: bad, at: 0, tokens: [1], sampling: broken, uniforms: source }]),
    target.run([{ sequence: good, at: 0, tokens: [1], sampling: greedy, uniforms: source }]),
  ]);
  expect(runs).toMatchObject([{ status: 'rejected', reason: { code: 'internal' } }, { status: 'fulfilled' }]);
  await target.run([{ sequence: bad, at: 0, tokens: [1] }]);
  for (const sequence of [bad, good]) target.close(sequence);
});

test('a target that extends its caches in place gets one thread per key/value head at most, with a warning', async () => {
  const logger = { info: vi.fn(), warn: vi.fn() };
  const load = async (name: string, threads: number) => {
    const folder = fileURLToPath(new URL(`../../test/models/${name}`, import.meta.url));
    return (await loadModel('target', { dir: folder, threads, logger })).model.threads;
  };
  expect([await load('tiny', 16), await load('tiny-in-place', 2), await load('tiny-in-place', 0)]).toEqual([16, 2, 1]);
  expect(logger.warn).not.toHaveBeenCalled();
  expect(await load('tiny-in-place', 16)).toBe(2);
  expect(logger.warn).toHaveBeenCalledExactlyOnceWith({ requested: 16, threads: 2 }, expect.any(String));
});

test('single tokens have the same texts without padding, as the manifest allows, and with padding', async () => {
  const int8 = fileURLToPath(new URL('../../test/models/tiny-int8', import.meta.url));
  const folder = await mkdtemp(join(tmpdir(), 'ptp-single-rows-'));
  await cp(int8, folder, { recursive: true });
  const manifest = JSON.parse(await readFile(join(folder, 'manifest.json'), 'utf8'));
  expect(manifest.target.min_rows).toBe(1);
  manifest.target.min_rows = 2;
  await writeFile(join(folder, 'manifest.json'), JSON.stringify(manifest));
  const texts = await Promise.all([int8, folder].map(streams));
  expect(texts[1]).toEqual(texts[0]);
  await rm(folder, { recursive: true });
});

/** Returns the greedy texts of three sequences that run together, one token at a time. */
async function streams(folder: string): Promise<number[][]> {
  const engine = await openTargetEngine({ dir: folder });
  const texts = [[10], [20, 21, 22, 23, 24], [30, 31, 32]];
  const sequences = texts.map(() => engine.open());
  const ends = sequences.map(() => 0);
  for (let step = 0; step < 12; step++) {
    const slots = texts.map((text, i) => {
      const at = ends[i] as number;
      ends[i] = text.length;
      return { sequence: sequences[i] as number, at, tokens: text.slice(at), sampling: greedy, uniforms: source };
    });
    const { outputs } = await engine.run(slots);
    for (const [i, { picks }] of outputs.entries()) texts[i]?.push(picks.at(-1) as number);
  }
  await engine.dispose();
  return texts;
}

describe('draft and verify', () => {
  const prompt = Array.from('import torch', (c) => c.charCodeAt(0) - 32);
  const length = 100;

  /** Generates `length` tokens after the prompt with drafts of `draftLength` tokens. 0 means plain decoding. */
  async function write(sampling: SamplingParams, draftLength: number) {
    const [verified, drafted] = [target.open(), drafter.open()];
    const text = [...prompt];
    const end = prompt.length + length;
    let [calls, read, draftRead] = [0, 0, 0];
    while (text.length < end) {
      let draft: number[] = [];
      if (draftLength > 0) {
        const at = Math.min(draftRead, text.length - 1);
        const branches = [{ visible: text.length, length: draftLength }];
        const slot = { sequence: drafted, at, tokens: text.slice(at), sampling, uniforms: source, branches };
        draft = [...((await drafter.run([slot])).outputs[0]?.branches[0]?.tokens ?? [])];
        draftRead = text.length;
      }
      const tokens = [...text.slice(read), ...draft];
      const { outputs } = await target.run([{ sequence: verified, at: read, tokens, sampling, uniforms: source }]);
      const picks = outputs[0]?.picks.subarray(text.length - 1 - read) ?? [];
      text.push(...accept(draft, picks).tokens);
      read = text.length - 1;
      calls++;
    }
    target.close(verified);
    drafter.close(drafted);
    return { text: text.slice(0, end), calls };
  }

  test.each(settings)("writes the target's own text in fewer calls: %j", async (sampling) => {
    const plain = await write(sampling, 0);
    expect(plain.calls).toBe(length);
    for (const draftLength of [1, 3, 8]) {
      const { text, calls } = await write(sampling, draftLength);
      expect(text).toEqual(plain.text);
      expect(calls).toBeLessThan(0.9 * length);
    }
  });
});

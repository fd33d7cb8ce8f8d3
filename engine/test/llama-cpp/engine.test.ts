import { join } from 'node:path';
import { treeDepth } from '@ptp/protocol/sampling-params';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ggufFolder, ggufMissing } from '../../../test/gguf.ts';
import { openDraftEngine, openTargetEngine } from '../../src/open-engine.ts';
import type { SequenceId, TargetEngine } from '../../src/types.ts';

const picking = { sampling: { temperature: 0.8, topK: 40, topP: 0.95 }, uniforms: { seed: 5n, offset: 0 } };
const text = Array.from({ length: 24 }, (_, i) => 300 + ((i * 37) % 500));
const open = (options = {}) =>
  openTargetEngine({
    dir: join(ggufFolder(), 'default.f16.gguf'),
    threads: 1,
    contextLength: 1000,
    sequences: 3,
    prefixCacheBytes: 1e9,
    ...options,
  });

describe.skipIf(ggufMissing)('a GGUF target', () => {
  let engine: TargetEngine;
  beforeAll(async () => {
    engine = await open();
  }, 120_000);
  afterAll(() => engine?.dispose());

  const prefill = (sequence: SequenceId, tokens: readonly number[], at = 0) => engine.run([{ sequence, at, tokens }]);

  test('has the sizes of its metadata', () => {
    const { vocabulary, uniformsPerPosition, contextLength, maxSlots, bytesPerToken } = engine.info;
    expect(uniformsPerPosition).toBe(treeDepth(vocabulary));
    expect([contextLength, maxSlots]).toEqual([1000, 3]);
    expect(bytesPerToken).toBe(10 * 3 * (64 + 64) * 2);
  });

  test('names the file, the runtime and the options on which its results depend', async () => {
    const { fingerprint = [], prefillChunk } = engine.info;
    const text = JSON.stringify(fingerprint);
    expect(text).toContain('default.f16.gguf');
    expect(text).toContain('llama.cpp');
    expect(text).toContain('"flashAttention":false');
    expect(prefillChunk).toBe(128);
  });

  test('a prompt may exceed a batch of llama.cpp, and chunks make no difference', async () => {
    const prompt = Array.from({ length: 700 }, (_, i) => 300 + ((i * 37) % 500));
    const last = { tokens: prompt.slice(-1), at: prompt.length - 1, ...picking };
    const picks: number[][] = [];
    for (const size of [699, 128]) {
      const sequence = engine.open();
      for (let at = 0; at < 699; at += size) await prefill(sequence, prompt.slice(at, Math.min(at + size, 699)), at);
      const { outputs } = await engine.run([{ sequence, ...last }]);
      picks.push([...(outputs[0]?.picks ?? [])]);
      engine.close(sequence);
    }
    expect(picks[0]).toEqual(picks[1]);
  }, 60_000);

  test('the prefix cache keeps the newest rows within its limit', async () => {
    const small = await open({ prefixCacheBytes: 30 * engine.info.bytesPerToken });
    for (const tokens of [text, text.toReversed()]) {
      const sequence = small.open();
      await small.run([{ sequence, at: 0, tokens }]);
      small.close(sequence);
    }
    const sequence = small.open();
    expect(await small.reusePrefix(sequence, text)).toBe(0);
    expect(small.prefixCache()).toMatchObject({ sequences: 1, bytes: 24 * engine.info.bytesPerToken });
    expect(await small.reusePrefix(sequence, text.toReversed())).toBe(16);
    await small.dispose();
  }, 60_000);

  test('errors name the file and the reason', async () => {
    const dir = join(ggufFolder(), 'default.f16.gguf');
    await expect(openDraftEngine({ dir })).rejects.toThrow(`\`${dir}\` is a GGUF file, which has no drafter`);
    await expect(openTargetEngine({ dir: '/none.gguf' })).rejects.toMatchObject({ code: 'failed_precondition' });
  });
});

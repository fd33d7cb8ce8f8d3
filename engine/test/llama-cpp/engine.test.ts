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

  /** Runs a slot with picks on a new sequence. */
  async function picksOf(tokens: readonly number[]): Promise<number[]> {
    const sequence = engine.open();
    const { outputs } = await engine.run([{ sequence, at: 0, tokens, ...picking }]);
    engine.close(sequence);
    return [...(outputs[0]?.picks ?? [])];
  }

  test('has the sizes of its metadata', () => {
    const { vocabulary, uniformsPerPosition, contextLength, maxSlots, bytesPerToken } = engine.info;
    expect(uniformsPerPosition).toBe(treeDepth(vocabulary));
    expect([contextLength, maxSlots]).toEqual([1000, 3]);
    expect(bytesPerToken).toBe(10 * 3 * (64 + 64) * 2);
  });

  test('a rejected block leaves nothing behind: its rows are overwritten', async () => {
    const sequence = engine.open();
    const whole = await picksOf(text);
    await prefill(sequence, [...text.slice(0, 10), 9, 9, 9]);
    const { outputs } = await engine.run([{ sequence, at: 10, tokens: text.slice(10), ...picking }]);
    expect([...(outputs[0]?.picks ?? [])]).toEqual(whole.slice(10));
    engine.close(sequence);
  });

  test('sequences that share a run do not see each other', async () => {
    const others = [text.toReversed(), text.map((token) => token + 1)];
    const alone = [await picksOf(text)];
    for (const tokens of others) alone.push(await picksOf(tokens));
    const slots = [text, ...others].map((tokens) => ({ sequence: engine.open(), at: 0, tokens, ...picking }));
    const { outputs } = await engine.run(slots);
    expect(outputs.map(({ picks }) => [...picks])).toEqual(alone);
    for (const { sequence } of slots) engine.close(sequence);
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

  test('opens no more sequences than llama.cpp has', () => {
    const sequences = [engine.open(), engine.open(), engine.open()];
    expect(() => engine.open()).toThrow('overloaded: 3 sequences are open already');
    for (const sequence of sequences) engine.close(sequence);
    engine.close(engine.open());
  });

  test('reuses the rows of a closed sequence in whole blocks', async () => {
    const first = engine.open();
    await prefill(first, text);
    engine.close(first);
    const second = engine.open();
    expect(await engine.reusePrefix(second, [...text.slice(0, 20), 1])).toBe(16);
    engine.close(second);
  });

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

  test('stops while a run is in flight, which fails', async () => {
    const stopped = await open();
    const sequence = stopped.open();
    const run = stopped.run([{ sequence, at: 0, tokens: text }]);
    const [outcome] = await Promise.allSettled([run, stopped.dispose()]);
    expect(outcome).toMatchObject({ status: 'rejected', reason: { code: 'unavailable' } });
    expect(() => stopped.open()).toThrow('the engine has been stopped');
  }, 60_000);

  test('errors name the file and the reason', async () => {
    const dir = join(ggufFolder(), 'default.f16.gguf');
    await expect(openDraftEngine({ dir })).rejects.toThrow(`\`${dir}\` is a GGUF file, which has no drafter`);
    await expect(openTargetEngine({ dir: '/none.gguf' })).rejects.toMatchObject({ code: 'failed_precondition' });
  });
});

import { join } from 'node:path';
import type { SamplingParams } from '@ptp/protocol/sampling-params';
import type { LlamaContextSequence, Token } from 'node-llama-cpp';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ggufFolder, ggufMissing } from '../../../test/gguf.ts';
import { type LoadedGguf, loadGguf } from '../../src/llama-cpp/model.ts';
import { openTargetEngine } from '../../src/open-engine.ts';
import { Adjuster, type Adjustment, allowOnly, allowToken } from '../../src/sampling/adjust.ts';
import { uniforms } from '../../src/sampling/uniforms.ts';
import { adjusted, pickTree, shape } from '../../src/testing/reference-sampler.ts';
import type { TargetEngine, TargetOutput, TargetSlot } from '../../src/types.ts';

// The vocabulary of 2,048 tokens is twice the number of tokens that the engine reads if there is no top-k.
const text = Array.from({ length: 16 }, (_, i) => 300 + ((i * 37) % 500));
const plain = { temperature: 1, topK: 0, topP: 1 };
const adjustments = {
  logitBias: new Map(),
  presencePenalty: 0,
  frequencyPenalty: 0,
  repetitionPenalty: 1,
  heldBack: [],
  heldBackUntil: 0,
};

describe.skipIf(ggufMissing)('sampling from a GGUF target', () => {
  let engine: TargetEngine;
  let raw: LoadedGguf;
  /** [T][V] all logits, as llama.cpp returns them. */
  let logits: Float32Array[];
  beforeAll(async () => {
    const options = { dir: join(ggufFolder(), 'default.f16.gguf'), threads: 1, contextLength: 64, sequences: 1 };
    engine = await openTargetEngine(options);
    raw = await loadGguf(options);
    logits = await allLogits(raw.context.getSequence(), engine.info.vocabulary);
  }, 120_000);
  afterAll(async () => {
    await engine?.dispose();
    await raw?.context.dispose();
    await raw?.llama.dispose();
  });

  async function run(slot: Pick<TargetSlot, 'sampling' | 'adjust' | 'topCount' | 'roughScores'>, seed = 1n) {
    const sequence = engine.open();
    const { outputs } = await engine.run([{ sequence, at: 0, tokens: text, uniforms: { seed, offset: -1 }, ...slot }]);
    engine.close(sequence);
    return outputs[0] as TargetOutput;
  }

  /** Returns the reference sampler's picks from all logits. */
  function expected(sampling: SamplingParams, adjust: readonly Adjustment[] | undefined, seed: bigint): number[] {
    const depth = engine.info.uniformsPerPosition;
    const u = uniforms(seed, 0, text.length, depth);
    return logits.map((row, i) => {
      const changed = adjust ? adjusted(row, adjust[i] as Adjustment) : row;
      return pickTree(u.subarray(i * depth, (i + 1) * depth), shape(changed, sampling));
    });
  }

  async function expectReference(sampling: SamplingParams, adjust?: readonly Adjustment[]): Promise<void> {
    for (const seed of [1n, 2n, 3n, 4n]) {
      for (const roughScores of [false, true]) {
        const output = await run({ sampling, roughScores, ...(adjust && { adjust }) }, seed);
        expect(output.truncated ?? false).toBe(false);
        expect([...output.picks]).toEqual(expected(sampling, adjust, seed));
      }
    }
  }

  test.each([
    { ...plain, temperature: 0 },
    { ...plain, topK: 1 },
    { ...plain, topK: 40 },
    { ...plain, topK: 1500 },
    { ...plain, topK: 2048, temperature: 1.5 },
    { ...plain, topK: 40, topP: 0.9, temperature: 0.7 },
    { ...plain, topP: 0.8, temperature: 0.2 },
    { ...plain, minP: 0.05, temperature: 1.4 },
    { ...plain, minP: 0.02, topP: 0.9 },
    { ...plain, temperature: 0.1 },
  ])('is exact: %j', (sampling) => expectReference(sampling));

  test.each([
    { ...plain, temperature: 2 },
    { ...plain, topP: 0.95 },
  ])('otherwise only the most probable tokens are picked, and it says so: %j', async (sampling) => {
    const { picks, truncated } = await run({ sampling });
    expect(truncated).toBe(true);
    // The 1,024 tokens and the spare ones. The last of them has the logit `floor`.
    expect([...picks]).toEqual(expected({ ...sampling, topK: 1031 }, undefined, 1n));
  });

  const rows = (params: Partial<typeof adjustments>) =>
    new Adjuster({ ...adjustments, ...params }, text.slice(0, 4), text.slice(4, 8)).along(text.slice(1));

  test.each([
    ['positive logit_bias', { logitBias: new Map([[5, 12]]) }],
    ['negative logit_bias', { logitBias: new Map([[300, -5]]) }],
    ['a ban', { logitBias: new Map([[337, Number.NEGATIVE_INFINITY]]) }],
    ['repetition_penalty', { repetitionPenalty: 1.3 }],
    ['repetition_penalty below 1', { repetitionPenalty: 0.7 }],
    ['presence_penalty', { presencePenalty: 1.5 }],
    ['negative frequency_penalty', { frequencyPenalty: -2 }],
    ['all', { logitBias: new Map([[9, 8]]), presencePenalty: 1, frequencyPenalty: 0.5, repetitionPenalty: 1.2 }],
  ])('%s is exact', async (_, params) => {
    await expectReference({ ...plain, temperature: 0 }, rows(params));
    await expectReference({ ...plain, topK: 40, topP: 0.95 }, rows(params));
  });

  test.each([
    ['few improbable tokens', (id: number) => id % 700 === 12],
    ['many tokens', (id: number) => id % 3 === 0],
  ])('a mask of %s is exact', async (_, isAllowed) => {
    const mask = new Uint8Array(engine.info.vocabulary / 8);
    for (let id = 0; id < engine.info.vocabulary; id++)
      if (isAllowed(id)) mask[id >> 3] = (mask[id >> 3] ?? 0) | (1 << (id & 7));
    const adjust = text.map(() => allowOnly(mask));
    await expectReference({ ...plain, temperature: 0 }, adjust);
    await expectReference({ ...plain, topK: 10 }, adjust);
  });

  test('log-probabilities and alternatives are exact', async () => {
    const {
      picks,
      logProbabilities,
      topIds = [],
      topLogProbabilities = [],
    } = await run({
      sampling: { ...plain, topK: 5 },
      topCount: 20,
    });
    for (const [i, row] of logits.entries()) {
      const total = Math.log(row.reduce((sum, logit) => sum + Math.exp(logit), 0));
      expect(logProbabilities[i]).toBeCloseTo((row[picks[i] as number] as number) - total, 4);
      const ranked = [...row.keys()].sort((a, b) => (row[b] as number) - (row[a] as number));
      expect([...topIds.slice(20 * i, 20 * i + 20)]).toEqual(ranked.slice(0, 20));
      expect(topLogProbabilities[20 * i + 19]).toBeCloseTo((row[ranked[19] as number] as number) - total, 4);
    }
  });

  test('scores a given text', async () => {
    const adjust = text.map((token) => allowToken(token, engine.info.vocabulary));
    const { picks, logProbabilities } = await run({ sampling: { ...plain, temperature: 0 }, adjust });
    expect([...picks]).toEqual(text);
    const [row] = logits as [Float32Array];
    const total = Math.log(row.reduce((sum, logit) => sum + Math.exp(logit), 0));
    expect(logProbabilities[0]).toBeCloseTo((row[300] as number) - total, 4);
  });
});

async function allLogits(sequence: LlamaContextSequence, vocabulary: number): Promise<Float32Array[]> {
  const options = { generateNext: { logits: true, options: { temperature: 0 } } };
  const results = await sequence.controlledEvaluate(text.map((token) => [token as Token, options]));
  return results.map((result) => {
    const row = new Float32Array(vocabulary);
    for (const [id, logit] of result?.next.logits ?? []) row[id] = logit;
    return row;
  });
}

import { join } from 'node:path';
import type { Token } from 'node-llama-cpp';
import { describe, expect, test } from 'vitest';
import { ggufFolder, ggufMissing } from '../../../test/gguf.ts';
import { loadGguf } from '../../src/llama-cpp/model.ts';
import { openTargetEngine } from '../../src/open-engine.ts';
import { randomTokens } from '../../src/sampling/uniforms.ts';
import type { EngineOptions, TargetEngine } from '../../src/types.ts';

const LENGTH = 200;
const picking = { sampling: { temperature: 0, topK: 0, topP: 1 }, uniforms: { seed: 0n, offset: 0 } };

/** Returns prompts of 5 to 41 tokens. */
const prompts = (vocabulary: number, count: number) =>
  Array.from({ length: count }, (_, i) => randomTokens(BigInt(i), 5 + 4 * i, vocabulary));

/** Decodes as the verifier does: the prompt except its last token, then one token per run. */
async function ours(engine: TargetEngine, prompt: readonly number[]): Promise<number[]> {
  const sequence = engine.open();
  const text = [...prompt];
  await engine.run([{ sequence, at: 0, tokens: prompt.slice(0, -1) }]);
  while (text.length < prompt.length + LENGTH) {
    const slot = { sequence, at: text.length - 1, tokens: text.slice(-1), ...picking, roughScores: true };
    const { outputs } = await engine.run([slot]);
    text.push(outputs[0]?.picks[0] as number);
  }
  engine.close(sequence);
  return text.slice(prompt.length);
}

/** Returns the texts that llama.cpp's own greedy sampler generates. */
async function theirs(options: EngineOptions, count: number): Promise<number[][]> {
  const { context, info, llama } = await loadGguf(options);
  const sequence = context.getSequence();
  const texts: number[][] = [];
  for (const prompt of prompts(info.vocabulary, count)) {
    await sequence.clearHistory();
    const text: number[] = [];
    for await (const token of sequence.evaluate(prompt as Token[], { temperature: 0, yieldEogToken: true })) {
      text.push(token);
      if (text.length === LENGTH) break;
    }
    texts.push(text);
  }
  await context.dispose();
  await llama.dispose();
  return texts;
}

describe.skipIf(ggufMissing)('greedy text is the same as from llama.cpp', () => {
  // The last models have a different quantisation, Gemma's sliding window, and norms of queries and keys.
  test.each([
    ['default.f16', 3],
    ['default.q8_0', 10],
    ['default.q4_0', 3],
    ['llama.f16', 10],
    ['qwen3.q8_0', 10],
    ['gemma3.f16', 10],
  ])(
    '%s, %i prompts',
    async (name, count) => {
      const options = { dir: join(ggufFolder(), `${name}.gguf`), threads: 1, contextLength: 300, sequences: 1 };
      const expected = await theirs(options, count);
      const engine = await openTargetEngine(options);
      for (const [i, prompt] of prompts(engine.info.vocabulary, count).entries()) {
        expect(await ours(engine, prompt)).toEqual(expected[i]);
      }
      await engine.dispose();
    },
    120_000,
  );
});

import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import type { GenerationRequest, GenerationStep } from '../gateway/src/decode/types.ts';
import { TestPair } from './test-pair.ts';

// A whole model in the drafter's place, through the real services: another one, and the target itself.

const folder = (name: string) => join(import.meta.dirname, 'models', name);
const limits = { length: 6, budget: 16, lookup: false, ahead: 4 };
const never = new AbortController().signal;
let pair: TestPair | undefined;
afterEach(() => pair?.stop());

async function steps(generator: TestPair['generator'], request: GenerationRequest): Promise<GenerationStep[]> {
  const made: GenerationStep[] = [];
  for await (const step of generator.generate(request, never)) made.push(step);
  return made;
}

const textOf = (made: GenerationStep[]) => made.flatMap(({ tokens }) => tokens);

const requests: GenerationRequest[] = [0, 0.7, 1, 1.3].map((temperature, i) => ({
  prompt: [0, ...Array.from('export interface A', (c) => c.charCodeAt(0) + 1)],
  sampling: { temperature, topK: i % 2 === 0 ? 0 : 50, topP: i === 3 ? 0.95 : 1, minP: i === 2 ? 0.1 : 0 },
  seed: BigInt(i),
  maxTokens: 120,
  ignoreEndOfText: true,
}));

describe.each(['overlap', 'sequential'] as const)('a whole model that drafts, %s', (mode) => {
  test('changes nothing about the text, whichever model it is', async () => {
    pair = await TestPair.onnx(folder('tiny-feature'), { limits: { ...limits, mode }, draftModel: folder('tiny') });
    const { generator } = pair;
    const plain = await Promise.all(requests.map((request) => steps(generator, { ...request, drafting: false })));
    const drafted = await Promise.all(requests.map((request) => steps(generator, request)));
    expect(drafted.map(textOf)).toEqual(plain.map(textOf));
    const proposed = drafted.flat().filter(({ stats }) => stats.source === 'drafter');
    expect(proposed.length).toBeGreaterThan(10);
  });

  test('is right about everything if it is the target, in batches and after its rows have been drafted over', async () => {
    pair = await TestPair.onnx(folder('tiny-feature'), {
      limits: { ...limits, mode },
      draftModel: folder('tiny-feature'),
    });
    const { generator } = pair;
    const drafted = await Promise.all(requests.map((request) => steps(generator, request)));
    for (const { stats } of drafted.flat()) if (stats.source === 'drafter') expect(stats.accepted).toBe(stats.drafted);
  });
});

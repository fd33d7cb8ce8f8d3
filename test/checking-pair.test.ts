import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { GenerationRequest, GenerationStep } from '../gateway/src/decode/types.ts';
import { TestPair } from './test-pair.ts';

// The whole loop with a drafter that holds the target and checks blocks by itself.

const dir = join(import.meta.dirname, 'models', 'tiny-feature');
const never = new AbortController().signal;
let pair: TestPair;

beforeAll(async () => {
  pair = await TestPair.onnx(dir, { limits: { length: 7, budget: 16, mode: 'overlap', lookup: false, ahead: 4 } });
});
afterAll(() => pair.stop());

async function steps(request: GenerationRequest): Promise<GenerationStep[]> {
  const made: GenerationStep[] = [];
  for await (const step of pair.generator.generate(request, never)) made.push(step);
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

test('the text is the same with and without the drafter, alone and at once', async () => {
  const reference = await Promise.all(requests.map((request) => steps({ ...request, drafting: false }).then(textOf)));
  const together = await Promise.all(requests.map((request) => steps(request).then(textOf)));
  expect(together).toEqual(reference);
  for (const [i, request] of requests.entries()) expect(textOf(await steps(request))).toEqual(reference[i]);
});

test('a draft beside a verify always fits, as the drafter is told by its copy of the target what comes', async () => {
  for (const request of requests) {
    const stats = (await steps(request)).map((step) => step.stats);
    // at the end there is no room for a draft, or none for more of it than its first token
    const after = stats.slice(1, -1).filter((_, i) => (stats[i]?.budget ?? 0) > 0);
    expect(after.length).toBeGreaterThan(10);
    expect(after.every(({ redraftMicros, source }) => redraftMicros === 0 && source === 'drafter')).toBe(true);
  }
});

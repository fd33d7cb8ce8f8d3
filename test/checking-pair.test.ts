import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { stepsOf, tokensOf, variedRequests } from './generated.ts';
import { TestPair } from './test-pair.ts';

// Runs the whole loop with a drafter that contains a copy of the target and checks blocks with it.

const dir = join(import.meta.dirname, 'models', 'tiny-feature');
let pair: TestPair;

beforeAll(async () => {
  pair = await TestPair.onnx(dir, { limits: { length: 7, budget: 16, mode: 'overlap', lookup: false, ahead: 4 } });
});
afterAll(() => pair.stop());

test('the text is the same with and without the drafter, alone and concurrently', async () => {
  const text = (request: (typeof variedRequests)[number]) => stepsOf(pair.generator, request).then(tokensOf);
  const reference = await Promise.all(variedRequests.map((request) => text({ ...request, drafting: false })));
  expect(await Promise.all(variedRequests.map(text))).toEqual(reference);
  for (const [i, request] of variedRequests.entries()) expect(await text(request)).toEqual(reference[i]);
});

test("an overlapped draft always fits, because the drafter's copy of the target predicts the outcome", async () => {
  for (const request of variedRequests) {
    const stats = (await stepsOf(pair.generator, request)).map((step) => step.stats);
    // At the end there is no room for a draft, or only for its first token.
    const after = stats.slice(1, -1).filter((_, i) => (stats[i]?.budget ?? 0) > 0);
    expect(after.length).toBeGreaterThan(10);
    expect(after.every(({ redraftMicros, source }) => redraftMicros === 0 && source === 'drafter')).toBe(true);
  }
});

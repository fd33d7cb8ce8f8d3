import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { stepsOf, tokensOf, variedRequests } from './generated.ts';
import { TestPair } from './test-pair.ts';

// Drafts through the real services with a complete model instead of the drafter: with another model, and with the
// target itself.

const folder = (name: string) => join(import.meta.dirname, 'models', name);
const limits = { length: 6, budget: 16, lookup: false, ahead: 4 };
let pair: TestPair | undefined;
afterEach(() => pair?.stop());

describe.each(['overlap', 'sequential'] as const)('a whole model that drafts, %s', (mode) => {
  test('leaves the text unchanged, whichever model it is', async () => {
    pair = await TestPair.onnx(folder('tiny-feature'), { limits: { ...limits, mode }, draftModel: folder('tiny') });
    const { generator } = pair;
    const plain = await Promise.all(
      variedRequests.map((request) => stepsOf(generator, { ...request, drafting: false })),
    );
    const drafted = await Promise.all(variedRequests.map((request) => stepsOf(generator, request)));
    expect(drafted.map(tokensOf)).toEqual(plain.map(tokensOf));
    const proposed = drafted.flat().filter(({ stats }) => stats.source === 'drafter');
    expect(proposed.length).toBeGreaterThan(10);
  });

  test('is always right if it is the target, in batches and after its cache rows have been overwritten', async () => {
    pair = await TestPair.onnx(folder('tiny-feature'), {
      limits: { ...limits, mode },
      draftModel: folder('tiny-feature'),
    });
    const { generator } = pair;
    const drafted = await Promise.all(variedRequests.map((request) => stepsOf(generator, request)));
    for (const { stats } of drafted.flat()) if (stats.source === 'drafter') expect(stats.accepted).toBe(stats.drafted);
  });
});

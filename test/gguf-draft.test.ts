import { join } from 'node:path';
import { checkBatchInvariance } from '@ptp/engine/batch-invariance';
import { openDraftModel } from '@ptp/engine/open-engine';
import { afterEach, describe, expect, test } from 'vitest';
import { stepsOf, tokensOf } from './generated.ts';
import { ggufFolder, ggufMissing } from './gguf.ts';
import { TestPair } from './test-pair.ts';

// Decodes with a GGUF target and each kind of draft model, through the real services.

const target = () => join(ggufFolder(), 'default.f16.gguf');
const limits = { length: 6, budget: 16, lookup: false, ahead: 4, mode: 'overlap' } as const;
let pair: TestPair | undefined;
afterEach(() => pair?.stop());

describe.skipIf(ggufMissing)('a GGUF target with a draft model', () => {
  test.each([
    ['a smaller GGUF', () => join(ggufFolder(), 'default.q4_0.gguf'), 2],
    ['the drafter of a model folder', () => join(import.meta.dirname, '..', 'models', 'default'), 1.5],
  ])(
    '%s: 50 seeds give the same texts with and without it',
    async (_, draftModel, least) => {
      pair = await TestPair.onnx(target(), { limits, contextLength: 128, draftModel: draftModel() });
      const { generator } = pair;
      const { invariant } = await checkBatchInvariance(pair.target);
      let [different, steps, tokens] = [0, 0, 0];
      for (let seed = 0n; seed < 50n; seed++) {
        const request = {
          prompt: [300, 45, 612, 77],
          sampling: { temperature: 0.7, topK: 50, topP: 0.95 },
          seed,
          maxTokens: 16,
          ignoreEndOfText: true,
        };
        const plain = await stepsOf(generator, { ...request, drafting: false });
        const drafted = await stepsOf(generator, request);
        different += Number(JSON.stringify(tokensOf(plain)) !== JSON.stringify(tokensOf(drafted)));
        const proposed = drafted.filter(({ stats }) => stats.source === 'drafter');
        steps += proposed.length;
        tokens += tokensOf(proposed).length;
      }
      // Without batch invariance, a draw close to the border between two tokens may fall on either side.
      expect(different).toBeLessThanOrEqual(invariant ? 0 : 1);
      expect(tokens / steps).toBeGreaterThan(least);
    },
    120_000,
  );

  test('must have the same tokens', async () => {
    const other = { dir: join(ggufFolder(), 'llama.f16.gguf') };
    const message =
      'PTP_DRAFT_MODEL: the vocabulary size of random-llama must be 2048, as in ptp-typescript-17m, got 257';
    await expect(openDraftModel(other, target(), 'PTP_DRAFT_MODEL')).rejects.toThrow(message);
  });
});

import { join } from 'node:path';
import { checkBatchInvariance } from '@ptp/engine/batch-invariance';
import { openTargetEngine } from '@ptp/engine/open-engine';
import { describe, expect, test } from 'vitest';
import { loadGgufText } from '../gateway/src/text/gguf-tokenizer.ts';
import { testChoosing } from './choosing-suite.ts';
import { ggufFolder, ggufMissing } from './gguf.ts';
import { TestPair } from './test-pair.ts';

// The default target in llama.cpp writes TypeScript; its ONNX drafter drafts. With 8-bit weights, llama.cpp's results do
// not depend on the batch, so texts have to be equal.
describe.skipIf(ggufMissing)('a GGUF file', { timeout: 120_000 }, () => {
  const gguf = () => join(ggufFolder(), 'default.q8_0.gguf');

  test('passes the self-check', async () => {
    const engine = await openTargetEngine({ dir: gguf(), threads: 1, contextLength: 64, sequences: 2 });
    expect(await checkBatchInvariance(engine)).toMatchObject({ invariant: true });
    await engine.dispose();
  });

  testChoosing({
    open: () =>
      TestPair.gguf(gguf(), new URL('../models/default', import.meta.url).pathname, {
        limits: { length: 5, budget: 16, mode: 'overlap', ahead: 4 },
        prefixCacheBytes: 2 ** 24,
      }),
    tokenizer: async () => (await loadGgufText(gguf(), [0])).tokenizer,
    prompts: ['export interface A {', 'declare function f('],
    common: [',', ':'],
    bytewise: false,
    seeds: 8,
  });
});

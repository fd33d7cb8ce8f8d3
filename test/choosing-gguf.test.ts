import { checkBatchInvariance } from '@ptp/engine/batch-invariance';
import { openTargetEngine } from '@ptp/engine/open-engine';
import { describe } from 'vitest';
import { loadGgufText } from '../gateway/src/text/gguf-tokenizer.ts';
import { testChoosing } from './choosing-suite.ts';
import { defaultGguf, ggufMissing } from './gguf.ts';
import { TestPair } from './test-pair.ts';

// The default target in llama.cpp writes TypeScript, and its ONNX drafter drafts for it.
describe.skipIf(ggufMissing)('a GGUF file', { timeout: 120_000 }, () => {
  testChoosing({
    open: () =>
      TestPair.gguf(defaultGguf(), new URL('../models/default', import.meta.url).pathname, {
        limits: { length: 5, budget: 16, mode: 'overlap', ahead: 4 },
        prefixCacheBytes: 2 ** 24,
      }),
    tokenizer: async () => (await loadGgufText(defaultGguf(), [0])).tokenizer,
    prompts: ['export interface A {', 'declare function f('],
    common: [',', ':'],
    bytewise: false,
    invariant: async () => {
      const engine = await openTargetEngine({ dir: defaultGguf(), threads: 1, contextLength: 64, sequences: 2 });
      const { invariant } = await checkBatchInvariance(engine);
      await engine.dispose();
      return invariant;
    },
    seeds: 8,
  });
});

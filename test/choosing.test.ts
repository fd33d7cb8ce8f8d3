import { loadTokenizer } from '../gateway/src/text/json-tokenizer.ts';
import { testChoosing } from './choosing-suite.ts';
import { TestPair } from './test-pair.ts';

const tiny = new URL('models/tiny', import.meta.url).pathname;

// The tiny pair writes Python, one byte per token.
testChoosing({
  open: () =>
    TestPair.onnx(tiny, {
      limits: { length: 5, budget: 16, mode: 'overlap', ahead: 4 },
      prefixCacheBytes: 2 ** 20,
    }),
  tokenizer: () => loadTokenizer(tiny),
  prompts: ['def read(', '    return torch.'],
  common: [' ', 'e'],
  bytewise: true,
  seeds: 50,
});

import { defineConfig } from 'vitest/config';
import all from './vitest.config.ts';

/** `npm run test:unit` and `npm run coverage`: tests that start neither a model nor a process, in under 15 seconds. */
export default defineConfig({
  test: {
    ...all.test,
    include: [
      '{protocol,service-kit,engine,drafter,verifier}/test/**/*.test.ts',
      'gateway/test/{access,decode,text}/**/*.test.ts',
    ],
    exclude: [
      'engine/test/{llama-cpp,webgpu}/**',
      'gateway/test/text/gguf-tokenizer.test.ts',
      'engine/test/{batch-invariance,checking-drafter,gpu-form,onnx-engine,prefix-cache}.test.ts',
      'protocol/test/{manifest,rpc}.test.ts',
      'service-kit/test/{lifecycle,tracing}.test.ts',
    ],
    coverage: {
      include: ['{protocol,service-kit,engine,drafter,verifier}/src/**', 'gateway/src/{access,decode,text}/**'],
      exclude: ['**/gen/**', '**/testing/**'],
    },
  },
});

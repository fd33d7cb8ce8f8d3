import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts', '*/test/**/*.test.ts'],
    isolate: false,
    // machines that run this may be busy; no test measures time
    testTimeout: 20_000,
    hookTimeout: 20_000,
  },
});

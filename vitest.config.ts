import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts', '*/test/**/*.test.ts'],
    isolate: false,
    // generous, because the machine may be busy; no test measures time
    testTimeout: 20_000,
    hookTimeout: 20_000,
  },
});

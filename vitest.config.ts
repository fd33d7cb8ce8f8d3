import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts', '*/test/**/*.test.ts'],
    isolate: false,
    // by default one core stays free, which is half of a small machine
    maxWorkers: '100%',
    // generous, because the machine may be busy; no test measures time
    testTimeout: 20_000,
    hookTimeout: 20_000,
    expect: { poll: { timeout: 10_000 } },
  },
});

import { fileURLToPath } from 'node:url';
import { onTestFinished } from 'vitest';
import { openTargetEngine, type SglangOptions } from '../../src/sglang/engine.ts';
import { FakeSglang, type FakeSglangOptions } from '../../src/testing/fake-sglang.ts';
import { hashScorer } from '../../src/testing/token-scores.ts';

/** Folder whose manifest the engines of these tests read: 257 tokens, a context of 256. */
export const dir = fileURLToPath(new URL('../../../test/models/tiny', import.meta.url));
export const vocabulary = 257;

/** Short times, so that tests of failures end soon. */
export const times = { retryMs: 3000, deathMs: 500, firstPauseMs: 20, longestPauseMs: 100, idleMs: 50 };

/** Starts a server until the end of the test. */
export async function startFake(options: Partial<FakeSglangOptions> = {}, port = 0): Promise<FakeSglang> {
  const fake = await FakeSglang.start({ vocabulary, score: hashScorer(vocabulary), ...options }, port);
  onTestFinished(() => fake.stop());
  return fake;
}

/** Opens an engine on servers until the end of the test. */
export async function openOn(fakes: readonly Pick<FakeSglang, 'url'>[], options: Partial<SglangOptions> = {}) {
  const address = fakes.map(({ url }) => url).join(',');
  const engine = await openTargetEngine({ dir, prefixCacheBytes: 1, address, startLimitMs: 0, times, ...options });
  onTestFinished(() => engine.dispose());
  return engine;
}

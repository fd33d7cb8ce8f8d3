import { expect, test } from 'vitest';
import { gatewayBudget } from '../src/memory-budget.ts';

const settings = { maxStreams: 64, tracesKept: 100 };

test('the budget grows with the vocabulary, and covers the measured memory of a gateway with 151,936 tokens', () => {
  const { total: small, parts } = gatewayBudget(settings, { vocab: 2048 }, 1e12);
  const { total } = gatewayBudget(settings, { vocab: 151_936 }, 1e12);
  expect(parts.tokenizer).toBe(2048 * 1500);
  expect(total - small).toBe((151_936 - 2048) * 1500);
  expect(total).toBeGreaterThan(414e6);
  expect(() => gatewayBudget(settings, { vocab: 151_936 }, total - 1)).toThrow(/tokenizer 228.*lower PTP_MAX_STREAMS/);
});

import { expect, test } from 'vitest';
import { silent } from '../../../test/test-pair.ts';
import { PairClient } from '../../src/clients/pair-client.ts';

test('a target without a drafter has no draft stream, so that no failed drafter is reported', () => {
  const client = new PairClient({
    model: { modelId: 'a', vocabulary: 8, contextLength: 16, endOfText: 0, tokenizerSha256: '' },
    verifiers: [],
    drafters: [],
    draftTimeoutMs: 1000,
    draftLength: 8,
    verifyTimeoutMs: 1000,
    recoveryMs: 1000,
    logger: silent,
  });
  const request = { prompt: [1], sampling: { temperature: 0, topK: 0, topP: 1 }, seed: 1n, maxTokens: 1 };
  const { signal } = new AbortController();
  expect(client.draft(request, { signal, traceparent: '', onVerifierLoss: () => {} })).toBeUndefined();
  client.close();
});

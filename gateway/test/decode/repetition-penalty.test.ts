import { noAdjustment } from '@ptp/protocol/token-adjustments';
import { expect, test } from 'vitest';
import { PairGenerator } from '../../src/decode/generate.ts';
import type { Streams } from '../../src/decode/ports.ts';

const limits = { length: 4, budget: 8, mode: 'plain' } as const;
const request = { prompt: [1], sampling: { temperature: 0, topK: 0, topP: 1 }, seed: 1n, maxTokens: 1 };
const never = new AbortController().signal;

/** Starts a request at a verifier that cannot be reached. */
function start(repetitionPenalty: number, rejectsRepetitionPenalty?: boolean): Promise<unknown> {
  const streams: Streams = {
    model: { modelId: 'a', vocabulary: 8, contextLength: 16, endOfText: 0 },
    health: () => ({ verifier: true, drafter: false, ...(rejectsRepetitionPenalty && { rejectsRepetitionPenalty }) }),
    verify: () => {
      throw new Error('reached the verifier');
    },
    draft: () => undefined,
  };
  const adjustments = { ...noAdjustment, presencePenalty: 1, repetitionPenalty };
  return new PairGenerator(streams, limits).generate({ ...request, adjustments }, never).next();
}

test('a repetition penalty returns an error if the engine has no logits to scale', async () => {
  await expect(start(1.2, true)).rejects.toMatchObject({
    code: 'invalid_argument',
    field: 'repetition_penalty',
    message: '`repetition_penalty` must be 1 for this engine, which has no logits to scale, got 1.2',
  });
  await expect(start(1, true)).rejects.toThrow('reached the verifier');
  await expect(start(1.2)).rejects.toThrow('reached the verifier');
});

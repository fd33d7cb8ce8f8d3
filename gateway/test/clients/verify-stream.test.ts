import { describe, expect, test } from 'vitest';
import { GrpcVerifyStream, type VerifyStreamParts } from '../../src/clients/verify-stream.ts';

type Call = VerifyStreamParts['call'];

/** Opens a stream whose answers the test gives, and records how its call ends. */
async function open() {
  const answers: PromiseWithResolvers<unknown>[] = [];
  const next = () => {
    const answer = Promise.withResolvers<unknown>();
    answers.push(answer);
    return answer.promise;
  };
  const ends: string[] = [];
  const call = {
    send: () => {},
    receive: next,
    cancel: () => void ends.push('cancel'),
    finish: () => void ends.push('finish'),
  } as unknown as Call;
  const request = { prompt: [1], sampling: { temperature: 1, topK: 0, topP: 1 }, seed: 1n, maxTokens: 9 };
  const rest = { tokens: [1], traceparent: '', timeoutMs: 1000, vocabulary: 9, onVerified: () => {} };
  const stream = new GrpcVerifyStream({ call, request, ...rest });
  const answer = async (kind: object) => {
    await expect.poll(() => answers.length).toBeGreaterThan(0);
    answers.shift()?.resolve({ kind });
  };
  return { stream, answer, ends };
}

const opened = { case: 'opened', value: { reusedTokens: 0 } };
const result = { case: 'result', value: { accepted: 0, nextToken: 3, logProbabilities: [-1], top: [] } };
const step = { kind: 'verify', step: { index: 0 }, block: [], allowed: [], overlapped: false } as const;

describe('close', () => {
  test('finishes a call whose steps are answered', async () => {
    const { stream, answer, ends } = await open();
    await answer(opened);
    await stream.opened();
    const verdict = stream.step(step);
    await answer(result);
    expect(await verdict).toMatchObject({ accepted: 0, nextToken: 3 });
    stream.close();
    expect(ends).toEqual(['finish']);
  });

  test('cancels a call with a step that was sent ahead, so that it is not run in vain', async () => {
    const { stream, answer, ends } = await open();
    await answer(opened);
    await stream.opened();
    const first = stream.step(step);
    const ahead = stream.step({ ...step, step: { index: 1 }, after: { of: step.step } });
    await answer(result);
    await first;
    stream.close();
    expect(ends).toEqual(['cancel']);
    await answer(result);
    await ahead;
  });

  test('cancels a call that is not open yet', async () => {
    const { stream, answer, ends } = await open();
    stream.close();
    expect(ends).toEqual(['cancel']);
    await answer(opened);
  });
});

import { PtpError } from '@ptp/protocol/errors';
import { expect, test } from 'vitest';
import { FailoverVerifyStream } from '../../src/clients/failover-verify-stream.ts';
import type { ExpectedOutcome, Verdict, VerifyCall, VerifyStream } from '../../src/decode/ports.ts';

const time = { micros: 1, queueMicros: 0, runMicros: 1, batchSize: 1, drafted: 0 };

/** A verifier that accepts every block until it is lost. It records the steps that it has received. */
class Scripted implements VerifyStream {
  readonly sent: string[] = [];
  readonly #lost = Promise.withResolvers<never>();
  readonly #held = Promise.withResolvers<void>();

  constructor() {
    this.#lost.promise.catch(() => {});
  }

  lose(): void {
    this.#lost.reject(new PtpError('unavailable', 'lost'));
  }

  /** Answers the steps received so far, and all later steps. */
  answer(): void {
    this.#held.resolve();
  }

  async opened() {
    return { reusedTokens: 0 };
  }

  step(call: VerifyCall): Promise<Verdict> {
    const { block, after } = call;
    const assumed = after && ('nextToken' in after ? `${after.accepted} ${after.nextToken}` : 'any');
    this.sent.push(assumed ? `after ${assumed}: ${block}` : `step ${block}`);
    return this.#answer(call);
  }

  async #answer({ block }: VerifyCall): Promise<Verdict> {
    await Promise.race([this.#held.promise, this.#lost.promise]);
    return { accepted: block.length, nextToken: 9, logProbabilities: [], tops: [], time };
  }

  close(): void {}
}

const call = (...block: number[]): VerifyCall => {
  return { kind: 'verify', step: { index: 0 }, block, allowed: [], overlapped: false };
};
/** The outcome of every step: one token is accepted, and the next token is 9. */
const expectedOf = ({ step }: VerifyCall): ExpectedOutcome => ({ of: step, accepted: 1, nextToken: 9 });
const after = (before: VerifyCall, next: VerifyCall): VerifyCall => ({ ...next, after: expectedOf(before) });

test('a step is sent ahead only to a verifier that has received the previous step', async () => {
  const verifiers = [new Scripted(), new Scripted()];
  const [first, second] = verifiers as [Scripted, Scripted];
  const starts: number[][] = [];
  const stream = new FailoverVerifyStream({
    prompt: [7],
    open: (tokens) => {
      starts.push([...tokens]);
      return { stream: verifiers[starts.length - 1] as Scripted, end: () => {} };
    },
    ready: async () => {},
    recoveryMs: 1000,
    signal: new AbortController().signal,
    onLoss: () => {},
  });
  const [one, two, three, again, last] = [call(1), call(2), call(3), call(2), call(4)];
  const step = stream.step(one);
  const ahead = stream.step(after(one, two));
  first.lose();
  expect(await ahead).toBeUndefined();
  await expect.poll(() => second.sent).toEqual(['step 1']);
  // The second verifier reruns step one. It has not received step two, whose outcome is equal.
  expect(await stream.step(after(two, three))).toBeUndefined();
  second.answer();
  expect(await step).toMatchObject({ accepted: 1, nextToken: 9 });
  const repeated = stream.step(again);
  const following = stream.step(after(again, last));
  expect(await repeated).toMatchObject({ accepted: 1 });
  expect(await following).toMatchObject({ accepted: 1 });
  expect(first.sent).toEqual(['step 1', 'after 1 9: 2']);
  expect(second.sent).toEqual(['step 1', 'step 2', 'after 1 9: 4']);
  expect(starts).toEqual([[7], [7]]);
  stream.close();
});

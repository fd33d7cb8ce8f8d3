import { setTimeout as sleep } from 'node:timers/promises';
import { uniforms } from '@ptp/engine/sampling/uniforms';
import { fakeText } from '@ptp/engine/testing/fake-language';
import { VerifierService } from '@ptp/protocol/gen/ptp/v1/verifier_pb';
import { afterEach, describe, expect, test } from 'vitest';
import { type FakePairOptions, silent, TestPair } from '../../../test/test-pair.ts';
import { ReplicaPool } from '../../src/clients/replica-pool.ts';
import type { GenerationRequest, GenerationStep } from '../../src/decode/types.ts';

type FakePair = Awaited<ReturnType<typeof TestPair.fake>>;
const pairs: FakePair[] = [];
afterEach(async () => {
  await Promise.all(pairs.splice(0).map((pair) => pair.stop()));
});
async function start(options?: FakePairOptions): Promise<FakePair> {
  const pair = await TestPair.fake({ accuracy: 0.8, latencyMs: 1, ...options });
  pairs.push(pair);
  return pair;
}

const ask = (change: Partial<GenerationRequest> = {}): GenerationRequest => ({
  prompt: [7, 8, 9],
  sampling: { temperature: 0.75, topK: 50, topP: 0.9375 },
  seed: 5n,
  maxTokens: 150,
  ...change,
});
const expected = ({ prompt, sampling, seed, maxTokens }: GenerationRequest): number[] =>
  fakeText(prompt, sampling, uniforms(seed, 0, maxTokens));
const tokensOf = (steps: readonly GenerationStep[]) => steps.flatMap((step) => step.tokens);

/** Collects the steps of a text. Calls `act` once there are `after` steps. */
async function collect(
  pair: FakePair,
  request: GenerationRequest,
  after = -1,
  act: () => Promise<unknown> = async () => {},
) {
  const steps: GenerationStep[] = [];
  for await (const step of pair.generator.generate(request, new AbortController().signal)) {
    steps.push(step);
    if (steps.length === after) await act();
  }
  return steps;
}

describe('a stream whose verifier is lost', () => {
  test('continues on another one with the same text', async () => {
    const pair = await start({ verifiers: 2 });
    const lose = async () => {
      await pair.stopVerifier(0);
      await pair.startVerifier(0);
      await pair.stopVerifier(1);
    };
    const steps = await collect(pair, ask(), 7, lose);
    expect(tokensOf(steps)).toEqual(expected(ask()));
    expect(steps.map(({ stats }) => stats.step)).toEqual(steps.map((_, i) => i));
  });

  test('does not confuse steps in flight that have equal outcomes (a vocabulary of two tokens)', async () => {
    const limits = { length: 2, budget: 4, mode: 'overlap', ahead: 4 } as const;
    const pair = await start({ checks: true, vocabulary: 3, verifiers: 2, limits, latencyMs: 3, draftLatencyMs: 1 });
    const requests = Array.from({ length: 12 }, (_, i) =>
      ask({ prompt: [1], seed: BigInt(i), sampling: { temperature: 1, topK: 0, topP: 1 }, maxTokens: 400 }),
    );
    let generated = 0;
    const generate = async (request: GenerationRequest) => {
      const tokens: number[] = [];
      for await (const step of pair.generator.generate(request, new AbortController().signal)) {
        tokens.push(...step.tokens);
        generated += step.tokens.length;
      }
      return tokens;
    };
    const texts = requests.map(generate);
    const over = Promise.all(texts).then(() => true);
    // The losses are counted in tokens, so that a slow machine has time to recover from each.
    let losses = 0;
    for (let next = 400; !(await Promise.race([over, sleep(10)])); ) {
      if (generated < next) continue;
      const lost = losses++ % 2;
      await pair.stopVerifier(lost);
      await pair.startVerifier(lost);
      next = generated + 400;
    }
    expect(losses).toBeGreaterThan(4);
    const alone = ({ prompt, sampling, seed, maxTokens }: GenerationRequest) =>
      fakeText(prompt, sampling, uniforms(seed, 0, maxTokens), { vocabulary: 3 });
    expect(await Promise.all(texts)).toEqual(requests.map(alone));
  }, 60_000);

  test('continues once its only verifier is back', async () => {
    const pair = await start();
    const steps = await collect(pair, ask(), 5, async () => {
      await pair.stopVerifier();
      void sleep(300).then(() => pair.startVerifier());
    });
    expect(tokensOf(steps)).toEqual(expected(ask()));
  });

  test('survives repeated losses', async () => {
    const pair = await start({ verifiers: 2 });
    let lost = 0;
    const steps: GenerationStep[] = [];
    for await (const step of pair.generator.generate(ask(), new AbortController().signal)) {
      steps.push(step);
      if (steps.length % 6 !== 0) continue;
      const index = lost++ % 2;
      await pair.stopVerifier(index);
      await pair.startVerifier(index);
    }
    expect(lost).toBeGreaterThan(4);
    expect(tokensOf(steps)).toEqual(expected(ask()));
  });

  test('all eight concurrent streams are complete', async () => {
    const pair = await start({ verifiers: 2 });
    const requests = Array.from({ length: 8 }, (_, i) => ask({ seed: BigInt(i), maxTokens: 80 + i }));
    const texts = requests.map((request) => collect(pair, request));
    await sleep(40);
    await pair.stopVerifier(0);
    expect((await Promise.all(texts)).map(tokensOf)).toEqual(requests.map(expected));
  });

  test('ends with one clear error if no other verifier is available in time', async () => {
    const pair = await start({ recoveryMs: 300 });
    const failing = collect(pair, ask(), 3, () => pair.stopVerifier());
    await expect(failing).rejects.toMatchObject({
      code: 'unavailable',
      message: expect.stringMatching(/^the verifier was lost, and no other verifier took over within/),
    });
  });

  test('ends at once when its client disconnects', async () => {
    const pair = await start();
    const gone = new AbortController();
    const reading = (async () => {
      let steps = 0;
      for await (const _ of pair.generator.generate(ask(), gone.signal)) if (++steps === 3) await pair.stopVerifier();
    })();
    await sleep(200);
    gone.abort();
    await expect(reading).rejects.toMatchObject({ code: 'cancelled' });
  });
});

test('a request fails at once if no verifier is available', async () => {
  const pair = await start();
  await pair.stopVerifier();
  await expect.poll(() => pair.generator.health().verifier).toBe(false);
  const began = performance.now();
  await expect(collect(pair, ask())).rejects.toMatchObject({
    code: 'unavailable',
    message: 'the verifier is not reachable',
  });
  expect(performance.now() - began).toBeLessThan(2000);
  await pair.startVerifier();
  await expect.poll(() => pair.generator.health().verifier, { timeout: 5000 }).toBe(true);
  expect(tokensOf(await collect(pair, ask()))).toEqual(expected(ask()));
});

test('new streams go to the least busy verifier and avoid one that has just failed', async () => {
  const pair = await start({ verifiers: 2 });
  const [first = '', second = ''] = [pair.addresses.verifier, `${pair.addresses.verifier}.1`];
  const replicas = new ReplicaPool([first, second], {
    service: VerifierService,
    logger: silent,
    check: async () => {},
  });
  try {
    await expect
      .poll(() => [replicas.lease(), replicas.lease()].map((lease) => lease?.address).sort())
      .toEqual([first, second]);
    const leases = Array.from({ length: 4 }, () => replicas.lease());
    expect(leases.filter((lease) => lease?.address === second)).toHaveLength(2);
    const failed = leases.find((lease) => lease?.address === second);
    failed?.leave(true);
    failed?.leave(true);
    expect([replicas.lease(), replicas.lease()].map((lease) => lease?.address)).toEqual([first, first]);
    // The verifier is used again after the backoff.
    await expect.poll(() => replicas.lease()?.address, { timeout: 3000 }).toBe(second);
  } finally {
    replicas.close();
  }
});

import { setTimeout as sleep } from 'node:timers/promises';
import { uniforms } from '@ptp/engine/sampling/uniforms';
import { fakeText } from '@ptp/engine/testing/fake-language';
import type { DraftOutput } from '@ptp/engine/types';
import { afterEach, describe, expect, test } from 'vitest';
import { type FakePairOptions, TestPair } from '../../../test/test-pair.ts';
import type { DraftOverrides, GenerationRequest, GenerationStep } from '../../src/decode/types.ts';

type FakePair = Awaited<ReturnType<typeof TestPair.fake>>;

const pairs: FakePair[] = [];
afterEach(async () => {
  await Promise.all(pairs.splice(0).map((pair) => pair.stop()));
});

async function start(options?: FakePairOptions): Promise<FakePair> {
  const pair = await TestPair.fake(options);
  pairs.push(pair);
  return pair;
}

function ask(change: Partial<GenerationRequest> = {}): GenerationRequest {
  return {
    prompt: [7, 8, 9],
    sampling: { temperature: 0.75, topK: 50, topP: 0.9375 },
    seed: 5n,
    maxTokens: 60,
    ...change,
  };
}

/** Returns the text of plain decoding, which the loop must generate whatever the drafter proposes. */
function expected({ prompt, sampling, seed, maxTokens }: GenerationRequest): number[] {
  return fakeText(prompt, sampling, uniforms(seed, 0, maxTokens));
}

const never = new AbortController().signal;

async function collect(pair: FakePair, request: GenerationRequest, signal = never): Promise<GenerationStep[]> {
  const steps: GenerationStep[] = [];
  for await (const step of pair.generator.generate(request, signal)) steps.push(step);
  return steps;
}

const tokensOf = (steps: GenerationStep[]) => steps.flatMap((step) => step.tokens);

/** Waits until the services have closed all sequences. */
async function drained(pair: FakePair): Promise<void> {
  const empty = { sequences: 0, cacheBytes: 0 };
  await expect.poll(() => [pair.target.usage(), pair.draft.usage()], { timeout: 5000 }).toEqual([empty, empty]);
}

test('a text ends before any stop token', async () => {
  const request = ask();
  const whole = expected(request);
  const stop = whole[20] as number;
  const pair = await start({ accuracy: 0.9, stopTokens: [stop, 94] });
  const steps = await collect(pair, request);
  expect(tokensOf(steps)).toEqual(
    whole.slice(
      0,
      whole.findIndex((token) => [stop, 94].includes(token)),
    ),
  );
  expect(steps.at(-1)?.finish).toBe('stop');
});

test('with drafting disabled, the reason is the setting and not a missing drafter', async () => {
  const pair = await start({ accuracy: 1 });
  const steps = await collect(pair, ask({ maxTokens: 9, drafting: false }));
  expect(new Set(steps.map(({ stats }) => `${stats.mode}, ${stats.reason}`))).toEqual(new Set(['plain, setting']));
});

describe('the text is the same as with plain decoding', () => {
  for (const accuracy of [0, 0.5, 0.9, 1]) {
    test(`with a drafter that is right ${accuracy * 100} % of the time`, async () => {
      const pair = await start({ accuracy });
      for (const temperature of [0, 0.75, 1]) {
        const seed = 2n ** 64n - 1n;
        const request = ask({ seed, sampling: { temperature, topK: 0, topP: 1 }, maxTokens: 97 });
        expect(tokensOf(await collect(pair, request))).toEqual(expected(request));
        expect(tokensOf(await collect(pair, { ...request, drafting: false }))).toEqual(expected(request));
      }
      await drained(pair);
    });
  }

  test('for twelve sequences at once, of different lengths', async () => {
    const pair = await start({ accuracy: 0.8 });
    const requests = Array.from({ length: 12 }, (_, i) =>
      ask({ seed: BigInt(i), prompt: Array.from({ length: 1 + i * 9 }, (_, k) => 1 + k), maxTokens: 20 + 5 * i }),
    );
    const texts = await Promise.all(requests.map((request) => collect(pair, request)));
    expect(texts.map(tokensOf)).toEqual(requests.map(expected));
  });

  for (const limits of [
    { length: 1, budget: 1, mode: 'overlap' },
    { length: 8, budget: 64, mode: 'overlap' },
    { length: 3, budget: 4, mode: 'sequential' },
    { length: 4, budget: 12, mode: 'auto' },
  ] as const) {
    test(`with blocks of ${limits.length}, a budget of ${limits.budget}, mode ${limits.mode}`, async () => {
      const pair = await start({ accuracy: 0.7, limits });
      expect(tokensOf(await collect(pair, ask()))).toEqual(expected(ask()));
    });
  }
});

test('without a drafter, repetitions are proposed from earlier text, unless the request disables that', async () => {
  const pair = await start({ accuracy: 1 });
  const request = ask({ maxTokens: 40 });
  const [, ...alone] = expected({ ...request, maxTokens: 41 });
  // The prompt contains the answer. The fake target picks other tokens after it, but proposals are made.
  const prompt = [...request.prompt, ...alone, ...request.prompt];
  const sources = async (draftLimits: DraftOverrides, drafting = true) => {
    const steps = await collect(pair, { ...request, prompt, draftLimits, drafting });
    expect(tokensOf(steps)).toEqual(expected({ ...request, prompt }));
    return new Set(steps.map(({ stats }) => stats.source));
  };
  expect(await sources({ mode: 'plain' })).toContain('prompt lookup');
  expect(await sources({ mode: 'plain', lookup: false })).toEqual(new Set(['none']));
  expect(await sources({}, false)).toEqual(new Set(['none']));
});

test('a request may override draft limits, within those of the gateway', async () => {
  const pair = await start({ accuracy: 1, limits: { length: 4, budget: 16, mode: 'auto' } });
  const asked = async (draftLimits: DraftOverrides) =>
    (await collect(pair, ask({ maxTokens: 60, draftLimits }))).slice(1, -2);
  for (const mode of ['overlap', 'sequential', 'plain'] as const) {
    const steps = await asked({ mode, length: 2 });
    expect(new Set(steps.map(({ stats }) => `${stats.mode} ${stats.reason}`))).toEqual(new Set([`${mode} setting`]));
    expect(Math.max(...steps.map(({ stats }) => stats.offered))).toBe(mode === 'plain' ? 0 : 2);
  }
  expect(Math.max(...(await asked({ length: 9, mode: 'overlap' })).map(({ stats }) => stats.offered))).toBe(4);
});

test('a perfect drafter proposes a full block in every step; step statistics add up', async () => {
  const pair = await start({ accuracy: 1, limits: { length: 5, budget: 30, mode: 'overlap' } });
  const steps = await collect(pair, ask({ maxTokens: 100 }));
  expect(steps.slice(0, -2).every(({ stats }) => stats.offered === 5)).toBe(true);
  for (const { tokens, stats } of steps) {
    expect(stats.accepted).toBe(stats.drafted);
    expect(tokens).toHaveLength(stats.accepted + 1);
  }
  expect(steps.every(({ logProbabilities, tokens }) => logProbabilities.length === tokens.length)).toBe(true);
});

describe('steps sent ahead', () => {
  const limits = { length: 5, budget: 8, mode: 'overlap', ahead: 4 } as const;

  for (const accuracy of [0.3, 0.8, 1]) {
    for (const latencies of [
      { latencyMs: 0, draftLatencyMs: 0 },
      { latencyMs: 6, draftLatencyMs: 2 },
      { latencyMs: 2, draftLatencyMs: 6 },
    ]) {
      test(`leave the text unchanged: ${accuracy * 100} % right, ${JSON.stringify(latencies)}`, async () => {
        const pair = await start({ accuracy, checks: true, limits, ...latencies });
        const requests = Array.from({ length: 4 }, (_, i) => ask({ seed: BigInt(i), maxTokens: 80 + i }));
        const texts = await Promise.all(requests.map((request) => collect(pair, request)));
        expect(texts.map(tokensOf)).toEqual(requests.map(expected));
        // A draft that arrives after the verdict is too late for sending ahead.
        if (latencies.draftLatencyMs === 2) expect(texts.flat().some(({ stats }) => stats.aheadMicros > 0)).toBe(true);
        await drained(pair);
      });
    }
  }

  test('hide network latency: a fast drafter keeps several in flight', async () => {
    const times = { latencyMs: 10, draftLatencyMs: 1 };
    const ahead = async (most: number) => {
      const pair = await start({ accuracy: 0.8, checks: true, limits: { ...limits, ahead: most }, ...times });
      const steps = (await collect(pair, ask({ maxTokens: 200 }))).slice(3, -3);
      expect(Math.max(...steps.map(({ stats }) => stats.aheadMicros)) > 0).toBe(most > 0);
      return steps.reduce((sum, { stats }) => sum + stats.aheadMicros, 0) / steps.length;
    };
    expect(await ahead(0)).toBe(0);
    // Steps that were sent at least two steps early.
    expect(await ahead(3)).toBeGreaterThan(20_000);
  });

  test('stop soon if the drafter expects wrong outcomes, and no token is lost', async () => {
    let drafts = 0;
    const spoil = ({ branches }: DraftOutput): DraftOutput => {
      drafts++;
      // The drafter expects a token that the target will not pick.
      return {
        branches: branches.map((b) => ({
          ...b,
          tokens: b.tokens.map((token, i) => (i === 0 ? (token % 255) + 1 : token)),
        })),
      };
    };
    const pair = await start({ accuracy: 0.8, checks: true, limits, spoil, latencyMs: 3, draftLatencyMs: 1 });
    const request = ask({ maxTokens: 120 });
    const steps = await collect(pair, request);
    expect(tokensOf(steps)).toEqual(expected(request));
    expect(steps.every(({ stats }) => stats.aheadMicros === 0)).toBe(true);
    // One draft during each step and one before it, plus the unneeded drafts at first.
    expect(drafts).toBeLessThan(2 * steps.length + 20);
    await drained(pair);
  });

  test('end with the text: by length, stop token or a reader that stops', async () => {
    const pair = await start({ accuracy: 1, checks: true, limits, endAt: 20, latencyMs: 3, draftLatencyMs: 1 });
    for (let maxTokens = 1; maxTokens <= 14; maxTokens++) {
      expect(tokensOf(await collect(pair, ask({ maxTokens })))).toEqual(expected(ask({ maxTokens })));
    }
    const steps = await collect(pair, ask());
    expect(tokensOf(steps)).toEqual(expected(ask()).slice(0, 17));
    expect(steps.at(-1)?.finish).toBe('stop');
    for await (const step of pair.generator.generate(ask(), never)) if (step.stats.step === 1) break;
    await drained(pair);
  });

  test('survive the loss of a verifier or the drafter', async () => {
    const pair = await start({ accuracy: 0.9, checks: true, limits, latencyMs: 3, draftLatencyMs: 1, verifiers: 2 });
    const request = ask({ maxTokens: 400 });
    const steps: GenerationStep[] = [];
    for await (const step of pair.generator.generate(request, never)) {
      steps.push(step);
      if (steps.length === 10) await pair.stopVerifier(0);
      if (steps.length === 20) {
        await pair.startVerifier(0);
        await pair.stopVerifier(1);
      }
      if (steps.length === 30) await pair.stopDrafter();
      if (steps.length === 40) await pair.restartDrafter();
    }
    expect(tokensOf(steps)).toEqual(expected(request));
  });

  test('measure their own time, without the time of a slow reader', async () => {
    const pair = await start({ accuracy: 1, checks: true, limits, latencyMs: 2, draftLatencyMs: 1 });
    const times: number[] = [];
    for await (const { stats } of pair.generator.generate(ask({ maxTokens: 60 }), never)) {
      times.push(stats.stepMicros);
      await sleep(40);
    }
    expect(times.toSorted((a, b) => a - b)[times.length >> 1]).toBeLessThan(30_000);
  });
});

describe('the end of a text', () => {
  test('maxTokens is met exactly, for every remainder', async () => {
    const pair = await start({ accuracy: 1 });
    for (let maxTokens = 1; maxTokens <= 14; maxTokens++) {
      const steps = await collect(pair, ask({ maxTokens }));
      expect(tokensOf(steps)).toEqual(expected(ask({ maxTokens })));
      expect(steps.at(-1)?.finish).toBe('length');
    }
  });

  test('the end-of-text token ends it and is not part of it', async () => {
    const pair = await start({ accuracy: 1, endAt: 20 });
    const steps = await collect(pair, ask());
    expect(tokensOf(steps)).toEqual(expected(ask()).slice(0, 17));
    expect(steps.at(-1)?.finish).toBe('stop');
  });

  test('a sequence may fill the context to its last token', async () => {
    const pair = await start({ accuracy: 0.9, contextLength: 64 });
    for (const length of [63, 62, 40]) {
      const request = ask({ prompt: Array.from({ length }, (_, i) => 1 + i), maxTokens: 64 - length });
      expect(tokensOf(await collect(pair, request))).toEqual(expected(request));
    }
  });

  test('a request that exceeds the context is rejected before a stream is opened', async () => {
    const pair = await start({ contextLength: 64 });
    const long = ask({ prompt: new Array(64).fill(1) });
    await expect(collect(pair, long)).rejects.toMatchObject({ code: 'out_of_range', field: 'prompt' });
    await expect(collect(pair, ask({ maxTokens: 62 }))).rejects.toThrow(
      '`max_tokens` must be in [1, 61] after a prompt of 3 tokens, got 62',
    );
    expect(pair.target.runs).toBe(0);
  });
});

describe('without a drafter', () => {
  test('stopping it mid-stream leaves the text unchanged', async () => {
    const pair = await start({ accuracy: 0.9 });
    const request = ask({ maxTokens: 200 });
    const steps: GenerationStep[] = [];
    for await (const step of pair.generator.generate(request, never)) {
      steps.push(step);
      if (steps.length === 5) await pair.stopDrafter();
    }
    expect(tokensOf(steps)).toEqual(expected(request));
    expect(steps.slice(0, 5).some(({ stats }) => stats.drafted > 0)).toBe(true);
    expect(steps.slice(8).every(({ stats }) => stats.drafted === 0)).toBe(true);
  });

  test('a restarted drafter drafts again in the same stream', async () => {
    const pair = await start({ accuracy: 1, latencyMs: 8 });
    const request = ask({ maxTokens: 900 });
    const steps: GenerationStep[] = [];
    let resumed = 0;
    for await (const step of pair.generator.generate(request, never)) {
      steps.push(step);
      if (steps.length === 3) await pair.stopDrafter();
      if (steps.length === 6) await pair.restartDrafter();
      if (steps.length > 6 && step.stats.drafted > 0) resumed++;
    }
    expect(tokensOf(steps)).toEqual(expected(request));
    expect(resumed).toBeGreaterThan(0);
  });

  for (const length of [1, 40]) {
    test(`a hung drafter delays one step only, after a prompt of ${length}`, async () => {
      const pair = await start({ accuracy: 1, draftLatencyMs: 60_000, draftTimeoutMs: 300 });
      const request = ask({ prompt: new Array(length).fill(1), maxTokens: 30 });
      const steps = await collect(pair, request);
      expect(tokensOf(steps)).toEqual(expected(request));
      expect(steps.filter(({ stats }) => stats.stepMicros > 250_000).length).toBeLessThanOrEqual(1);
    });
  }

  test('a late answer is not used for the next step', async () => {
    let call = 0;
    const pair = await start({
      accuracy: 1,
      latencyMs: 5,
      draftTimeoutMs: 60,
      delayMs: () => (++call === 9 ? 200 : 0),
    });
    const request = ask({ maxTokens: 400 });
    const steps = await collect(pair, request);
    expect(tokensOf(steps)).toEqual(expected(request));
    const plain = steps.findIndex(({ stats }) => stats.step > 0 && stats.drafted === 0);
    expect(plain).toBeGreaterThan(0);
    expect(steps.slice(plain).some(({ stats }) => stats.accepted > 2)).toBe(true);
  });

  test('a drafter that is always late is tried rarely', async () => {
    let calls = 0;
    const pair = await start({ accuracy: 1, latencyMs: 5, draftTimeoutMs: 60, delayMs: () => (++calls > 0 ? 100 : 0) });
    const request = ask({ maxTokens: 200 });
    expect(tokensOf(await collect(pair, request))).toEqual(expected(request));
    expect(calls).toBeLessThan(12);
  });

  const spoilt: [string, (branch: DraftOutput['branches'][number]) => DraftOutput['branches'][number]][] = [
    ['tokens outside the vocabulary', ({ tokens, confidences }) => ({ tokens: tokens.map(() => 4000), confidences })],
    [
      'confidences that are not numbers',
      ({ tokens, confidences }) => ({ tokens, confidences: confidences.map(() => Number.NaN) }),
    ],
    ['fewer confidences than tokens', ({ tokens }) => ({ tokens, confidences: new Float32Array() })],
  ];
  for (const [what, spoil] of spoilt) {
    test(`a drafter that answers with ${what} leaves the text unchanged`, async () => {
      const pair = await start({ spoil: ({ branches }) => ({ branches: branches.map(spoil) }) });
      const steps = await collect(pair, ask());
      expect(tokensOf(steps)).toEqual(expected(ask()));
      expect(steps.every(({ stats }) => stats.drafted === 0)).toBe(true);
    });
  }

  test('services of another pair are not used', async () => {
    await expect(TestPair.fake({ modelId: 'other' }, 300)).rejects.toMatchObject({ code: 'unavailable' });
  });
});

test('50 clients that disconnect mid-stream leave no sequences behind', async () => {
  const pair = await start({ accuracy: 0.8, latencyMs: 1 });
  const runs = Array.from({ length: 50 }, async (_, i) => {
    const controller = new AbortController();
    const request = ask({ seed: BigInt(i), maxTokens: 900, prompt: new Array(1 + (i % 40)).fill(3) });
    let steps = 0;
    try {
      for await (const _ of pair.generator.generate(request, controller.signal)) {
        if (++steps < 1 + (i % 7)) continue;
        // Half of the requests return from the iteration, and the others are aborted from outside.
        if (i % 2 === 0) break;
        controller.abort();
      }
    } catch (error) {
      expect(error).toMatchObject({ code: 'cancelled' });
      return 'aborted';
    }
    return 'returned';
  });
  const outcomes = await Promise.all(runs);
  expect(outcomes.filter((outcome) => outcome === 'aborted')).toHaveLength(25);
  await drained(pair);
  expect(tokensOf(await collect(pair, ask()))).toEqual(expected(ask()));
});

test('an abort while the prompt is read ends both streams', async () => {
  const pair = await start({ latencyMs: 30 });
  const controller = new AbortController();
  const running = collect(pair, ask({ prompt: new Array(500).fill(3) }), controller.signal);
  await sleep(60);
  controller.abort();
  await expect(running).rejects.toMatchObject({ code: 'cancelled' });
  await drained(pair);
});

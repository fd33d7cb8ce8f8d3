import type { SamplingParams } from '@ptp/protocol/sampling-params';
import { describe, expect, test } from 'vitest';
import { Adjuster, type Adjustment, allowOnly, allowToken } from '../../src/sampling/adjust.ts';
import { uniforms } from '../../src/sampling/uniforms.ts';
import { readScores } from '../../src/sglang/answer.ts';
import { type ScoreRequest, scoreBody } from '../../src/sglang/score-request.ts';
import { runSlot } from '../../src/sglang/slot-run.ts';
import { metaInfo } from '../../src/testing/fake-sglang-answer.ts';
import { adjusted, pickTree, shape } from '../../src/testing/reference-sampler.ts';
import { hashScorer, type TokenScorer } from '../../src/testing/token-scores.ts';
import type { TargetSlot } from '../../src/types.ts';

const vocabulary = 2048;
const depth = 11;
const info = {
  vocabulary,
  contextLength: 64,
  uniformsPerPosition: depth,
  maxSlots: 1,
  maxSequences: 1,
  bytesPerToken: 1,
};
const score = cached(hashScorer(vocabulary));
const tokens = Array.from({ length: 12 }, (_, i) => 300 + ((i * 37) % 500));
const plain = { temperature: 1, topK: 0, topP: 1 };
const noAdjustment = {
  logitBias: new Map<number, number>(),
  presencePenalty: 0,
  frequencyPenalty: 0,
  repetitionPenalty: 1,
  heldBack: [],
  heldBackUntil: 0,
};

/** Keeps the rows of all texts, because many tests score the same ones. */
function cached(score: TokenScorer): TokenScorer {
  const known = new Map<string, ReturnType<TokenScorer>>();
  return (tokens, from) => {
    const key = `${from} ${tokens}`;
    const rows = known.get(key) ?? score(tokens, from);
    known.set(key, rows);
    return rows;
  };
}

/** Runs the text as one slot. @returns the output, and the requests that it took */
async function run(slot: Pick<TargetSlot, 'sampling' | 'adjust' | 'topCount'>, seed = 1n, at = 0, end = tokens.length) {
  const requests: ScoreRequest[] = [];
  const own = { sequence: 1, at, tokens: tokens.slice(at, end), uniforms: { seed, offset: 0 }, ...slot };
  const output = await runSlot(own, tokens.slice(0, end), info, async (request) => {
    requests.push(request);
    const body = scoreBody(request);
    const meta = metaInfo(body, await score(request.tokens, request.at), 0, { vocabulary, score });
    return readScores({ meta_info: meta }, request, vocabulary);
  });
  return { output, requests };
}

/** Returns the reference sampler's picks from all logits. */
async function expected(sampling: SamplingParams, adjust: readonly Adjustment[] | undefined, seed: bigint) {
  const u = uniforms(seed, 1, tokens.length, depth);
  const rows = await score(tokens, 0);
  return rows.map((row, i) => {
    const changed = adjust ? adjusted(row, adjust[i] as Adjustment) : row;
    return pickTree(u.subarray(i * depth, (i + 1) * depth), shape(changed, sampling));
  });
}

async function expectReference(sampling: SamplingParams, adjust?: readonly Adjustment[]): Promise<void> {
  for (const seed of [1n, 2n, 3n, 4n, 5n]) {
    const { output } = await run({ sampling, ...(adjust && { adjust }) }, seed);
    expect(output.truncated ?? false).toBe(false);
    expect([...output.picks]).toEqual(await expected(sampling, adjust, seed));
  }
}

describe('sampling from log-probabilities', () => {
  test.each([
    { ...plain, temperature: 0 },
    { ...plain, topK: 1 },
    { ...plain, topK: 40 },
    { ...plain, topK: 1500 },
    { ...plain, topK: 2048, temperature: 1.5 },
    { ...plain, topK: 40, topP: 0.9, temperature: 0.7 },
    { ...plain, topP: 0.9 },
    { ...plain, topP: 0.99, temperature: 0.7 },
    { ...plain, minP: 0.05, temperature: 1.4 },
    { ...plain, minP: 0.02, topP: 0.9 },
    { ...plain, temperature: 0.1 },
  ])('is exact: %j', (sampling) => expectReference(sampling));

  test('takes the candidates of the first round, or more if the nucleus does not close within them', async () => {
    const sizes = async (sampling: SamplingParams) => (await run({ sampling })).requests.map(({ top }) => top);
    expect(await sizes({ ...plain, temperature: 0 })).toEqual([9]);
    expect(await sizes({ ...plain, topK: 20 })).toEqual([28]);
    expect(await sizes({ ...plain, topP: 0.5 })).toEqual([72]);
    expect(await sizes({ ...plain, topP: 0.98 })).toEqual([72, 1032]);
    expect(await sizes(plain)).toEqual([1032]);
  });

  test('without top-k picks only the 1,024 most probable tokens if no nucleus closes, and says so', async () => {
    const sampling = { ...plain, temperature: 2 };
    const { output } = await run({ sampling });
    expect(output.truncated).toBe(true);
    // Equal to top-k with all candidates above the last one.
    expect([...output.picks]).toEqual(await expected({ ...sampling, topK: 1031 }, undefined, 1n));
  });

  test('does not depend on the other positions of the slot', async () => {
    for (const sampling of [plain, { ...plain, topP: 0.97 }, { ...plain, temperature: 2 }]) {
      const whole = (await run({ sampling })).output;
      for (let at = 0; at < tokens.length; at++) {
        const { output } = await run({ sampling }, 1n, at, at + 1);
        expect([output.picks[0], output.logProbabilities[0]]).toEqual([whole.picks[at], whole.logProbabilities[at]]);
      }
    }
  });

  const rows = (params: Partial<typeof noAdjustment>) =>
    new Adjuster({ ...noAdjustment, ...params }, tokens.slice(0, 4), tokens.slice(4, 8)).along(tokens.slice(1));

  test.each([
    ['positive logit_bias', { logitBias: new Map([[5, 12]]) }],
    ['negative logit_bias', { logitBias: new Map([[300, -5]]) }],
    ['a ban', { logitBias: new Map([[337, Number.NEGATIVE_INFINITY]]) }],
    ['presence_penalty', { presencePenalty: 1.5 }],
    ['negative frequency_penalty', { frequencyPenalty: -2 }],
    ['all', { logitBias: new Map([[9, 8]]), presencePenalty: 1, frequencyPenalty: 0.5 }],
    ['positive logit_bias of 300 tokens', { logitBias: new Map(Array.from({ length: 300 }, (_, i) => [i * 6, 3])) }],
  ])('%s is exact', async (_, params) => {
    await expectReference({ ...plain, temperature: 0 }, rows(params));
    await expectReference({ ...plain, topK: 40, topP: 0.95 }, rows(params));
    await expectReference({ ...plain, topP: 0.9 }, rows(params));
  });

  test.each([
    ['few improbable tokens', (id: number) => id % 700 === 12],
    ['many tokens', (id: number) => id % 3 === 0],
    ['300 tokens', (id: number) => id < 300],
  ])('a mask of %s is exact', async (_, isAllowed) => {
    const mask = new Uint8Array(vocabulary / 8);
    for (let id = 0; id < vocabulary; id++) if (isAllowed(id)) mask[id >> 3] = (mask[id >> 3] ?? 0) | (1 << (id & 7));
    const adjust = tokens.map(() => allowOnly(mask));
    await expectReference({ ...plain, temperature: 0 }, adjust);
    await expectReference({ ...plain, topK: 10 }, adjust);
    await expectReference({ ...plain, minP: 0.1 }, adjust);
  });

  test('scores a text with one request for the tokens that follow', async () => {
    const adjust = tokens.map((_, i) => allowToken(tokens[(i + 1) % tokens.length] as number, vocabulary));
    const { output, requests } = await run({ sampling: { ...plain, temperature: 0 }, adjust, topCount: 3 });
    expect(requests).toMatchObject([{ top: 3, named: [], probe: tokens[0] }]);
    expect([...output.picks]).toEqual([...tokens.slice(1), tokens[0]]);
    const logits = await score(tokens, 0);
    for (const [i, row] of logits.entries()) {
      const total = Math.log(row.reduce((sum, logit) => sum + Math.exp(logit), 0));
      expect(output.logProbabilities[i]).toBeCloseTo((row[output.picks[i] as number] as number) - total, 4);
      const best = [...row.keys()].sort((a, b) => (row[b] as number) - (row[a] as number)).slice(0, 3);
      expect([...(output.topIds?.slice(3 * i, 3 * i + 3) ?? [])]).toEqual(best);
    }
  });

  test('reads the whole vocabulary, but only for the undecided positions, if a mask excludes nearly all tokens', async () => {
    const improbable = new Uint8Array(vocabulary / 8);
    const [row] = await score(tokens.slice(0, 6), 5);
    const rising = [...(row as Float32Array).keys()].sort((a, b) => (row?.[a] as number) - (row?.[b] as number));
    for (const id of rising.slice(0, 400)) improbable[id >> 3] = (improbable[id >> 3] ?? 0) | (1 << (id & 7));
    const everything = allowOnly(new Uint8Array(vocabulary / 8).fill(255));
    const adjust = tokens.map((_, i) => (i === 5 ? allowOnly(improbable) : everything));
    const sampling = { ...plain, topK: 5 };
    const { output, requests } = await run({ sampling, adjust });
    expect(requests.map(({ at, tokens: sent, top }) => [at, sent.length, top])).toEqual([
      [0, 12, 13],
      [5, 6, 1032],
      [5, 6, 2048],
    ]);
    expect([...output.picks]).toEqual(await expected(sampling, adjust, 1n));
  });
});

import { PassThrough } from 'node:stream';
import { create } from '@bufbuild/protobuf';
import type { TargetEngine } from '@ptp/engine/types';
import { VerifyRequestSchema, type VerifyResult } from '@ptp/protocol/gen/ptp/v1/verifier_pb';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { openTargetEngine as openOnnx } from '../engine/src/onnx/engine.ts';
import { openTargetEngine as openSglang } from '../engine/src/sglang/engine.ts';
import { FakeSglang } from '../engine/src/testing/fake-sglang.ts';
import { engineScorer } from '../engine/src/testing/token-scores.ts';
import { Verifier } from '../verifier/src/verifier.ts';

const dir = 'models/default';
const LENGTH = 220;
const prompt = Array.from({ length: 40 }, (_, i) => 200 + ((i * 37) % 900));

let onnx: TargetEngine;
let fakes: FakeSglang[];
beforeAll(async () => {
  onnx = await openOnnx({ dir });
  const options = { vocabulary: onnx.info.vocabulary, score: engineScorer(onnx) };
  fakes = await Promise.all([FakeSglang.start(options), FakeSglang.start(options)]);
});
afterAll(async () => {
  await Promise.all(fakes.map((fake) => fake.stop()));
  await onnx.dispose();
});

/**
 * Generates a text with a verifier.
 *
 * @param draft function that returns the draft after the tokens generated so far
 */
async function generate(engine: TargetEngine, sampling: object, draft: (tokens: readonly number[]) => number[]) {
  const limits = { draft: 8, prefillChunk: 16, batchTokens: 64, sequences: 20, queue: 8 };
  const requests = new PassThrough({ objectMode: true });
  const answers = new Verifier(engine, limits).verify(requests, new AbortController().signal);
  const send = (kind: object) => requests.write(create(VerifyRequestSchema, { kind } as never));
  send({ case: 'open', value: { start: { tokens: prompt, sampling, seed: 11n } } });
  await answers.next();
  const tokens: number[] = [];
  let [steps, truncated] = [0, 0];
  for (; tokens.length < LENGTH; steps++) {
    const block = draft(tokens);
    send({ case: 'step', value: { step: steps, draft: block } });
    const { kind } = (await answers.next()).value as { kind: { value: VerifyResult } };
    const { accepted, nextToken } = kind.value;
    tokens.push(...block.slice(0, accepted), nextToken);
    truncated += Number(kind.value.truncated);
  }
  requests.end();
  await answers.next();
  return { tokens: tokens.slice(0, LENGTH), steps, truncated };
}

test.each([
  { temperature: 0 },
  { temperature: 0.7, topP: 0.95 },
  { temperature: 1, topP: 0.95 },
  { temperature: 1, topK: 50 },
])(
  'SGLang servers with the ONNX target give its text, with drafts: %j',
  async (sampling) => {
    const { tokens: expected } = await generate(onnx, sampling, () => []);
    // One draft in three has a wrong token.
    const draft = (tokens: readonly number[]) => {
      const block = expected.slice(tokens.length, tokens.length + 8);
      if (tokens.length % 3 === 0) block[tokens.length % 7] = 1 + (tokens.length % 1000);
      return block;
    };
    const engine = await openSglang({ dir, address: fakes.map(({ url }) => url).join(), prefixCacheBytes: 1 });
    const { tokens, steps, truncated } = await generate(engine, sampling, draft);
    await engine.dispose();
    expect(tokens).toEqual(expected);
    // Of 220 picks, a few have a nucleus whose last token the 1,024 candidates do not decide.
    expect(truncated).toBeLessThanOrEqual('topP' in sampling ? 6 : 0);
    expect(steps).toBeLessThan(LENGTH / 4);
  },
  120_000,
);

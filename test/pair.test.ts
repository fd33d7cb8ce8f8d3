import { once } from 'node:events';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import type { RequestOutcome } from '../gateway/src/decode/observer.ts';
import type { GenerationRequest, GenerationStep } from '../gateway/src/decode/types.ts';
import { asciiTokens, stepsOf, tokensOf } from './generated.ts';
import { postJson, serveGateway } from './served.ts';
import { TestPair } from './test-pair.ts';

// Runs the whole server with a small real pair: ONNX engines, gRPC, the decode loop and HTTP.

const dir = join(import.meta.dirname, 'models', 'tiny');
const never = new AbortController().signal;
let server: Awaited<ReturnType<typeof serveGateway>>;
let pair: TestPair;
/** Number of sequences over HTTP that were not cancelled. */
let finished = 0;

beforeAll(async () => {
  const requestFinished = ({ finish }: RequestOutcome) => {
    if (finish) finished++;
  };
  const observers = [{ requestStarted: () => ({ requestFinished }) }];
  server = await serveGateway(dir, { maxStreams: 64, observers, pair: { prefixCacheBytes: 4e6 } });
  pair = server.pair;
});
afterAll(() => server.close());

const text = (request: GenerationRequest) => stepsOf(pair.generator, request).then(tokensOf);

const settings = [
  { temperature: 0, topK: 0, topP: 1 },
  { temperature: 0.7, topK: 50, topP: 0.9 },
  { temperature: 1, topK: 0, topP: 1 },
  { temperature: 1.3, topK: 0, topP: 0.95 },
];

function requests(count: number): GenerationRequest[] {
  return Array.from({ length: count }, (_, i) => ({
    prompt: [0, ...asciiTokens('export interface A'.slice(i))],
    sampling: settings[i % settings.length] as (typeof settings)[number],
    seed: BigInt(i),
    maxTokens: 80,
  }));
}

describe('with a real engine', () => {
  test('the text is the same with and without the drafter, alone and eight concurrently', async () => {
    const eight = requests(8);
    const reference: number[][] = [];
    for (const request of eight) reference.push(await text({ ...request, drafting: false }));
    const alone: number[][] = [];
    for (const request of eight) alone.push(await text(request));
    const together = await Promise.all(eight.map(text));
    const mixed = await Promise.all(eight.map((request, i) => text({ ...request, drafting: i % 2 === 0 })));
    expect(alone).toEqual(reference);
    expect(together).toEqual(reference);
    expect(mixed).toEqual(reference);
    expect(reference.flat().length).toBeGreaterThan(300);
  }, 60_000);

  test('the drafter helps, and stopping it mid-stream leaves the text unchanged', async () => {
    const request: GenerationRequest = { ...(requests(2)[1] as GenerationRequest), maxTokens: 200 };
    const reference = await text({ ...request, drafting: false });
    const steps: GenerationStep[] = [];
    for await (const step of pair.generator.generate(request, never)) {
      steps.push(step);
      if (steps.length === 20) await pair.stopDrafter();
    }
    expect(tokensOf(steps)).toEqual(reference);
    const drafted = steps.slice(0, 20).filter(({ stats }) => stats.source === 'drafter');
    expect(drafted.reduce((sum, { stats }) => sum + stats.accepted, 0)).toBeGreaterThan(0);
    expect(steps.slice(22).length).toBeGreaterThan(0);
    expect(steps.slice(22).every(({ stats }) => stats.source !== 'drafter')).toBe(true);
    await pair.restartDrafter();
  });
});

test('the next turns of a chat hit the prefix cache, and the text stays the same', async () => {
  const plain = await TestPair.onnx(dir);
  onTestFinished(() => plain.stop());
  const before = { target: pair.target.prefixCache().hits, draft: pair.draft.prefixCache().hits };
  const write = async (from: TestPair, request: GenerationRequest) => {
    const steps = await stepsOf(from.generator, request);
    return { tokens: tokensOf(steps), reused: steps[0]?.reusedTokens };
  };
  const sampling = { temperature: 0.9, topK: 0, topP: 1 };
  let prompt = [0, ...asciiTokens('interface Turn {')];
  for (let turn = 0; turn < 3; turn++) {
    const request = { prompt, sampling, seed: BigInt(turn), maxTokens: 40 };
    const [expected, found] = [await write(plain, request), await write(pair, request)];
    expect(found.tokens).toEqual(expected.tokens);
    expect(expected.reused).toBe(0);
    // The prefix cache keeps earlier turns in whole blocks of 16. The last token of each turn had not been run, and 4
    // tokens are new.
    if (turn > 0) expect(found.reused).toBeGreaterThanOrEqual(prompt.length - 6 - 15);
    prompt = [...prompt, ...found.tokens, ...asciiTokens(`\n  ${turn}`)];
  }
  expect(pair.target.prefixCache().hits).toBe(before.target + 2);
  expect(pair.draft.prefixCache().hits).toBe(before.draft + 2);
});

/** Sends a request and closes its connection after the first bytes. @returns the response's status */
async function hangUpAfterFirstEvent(seed: number): Promise<number | undefined> {
  const body = JSON.stringify({ model: 'default', prompt: 'export ', max_tokens: 240, seed, stream: true });
  const request = httpRequest(new URL('/v1/completions', server.url), {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    agent: false,
  });
  request.end(body);
  const [response] = (await once(request, 'response')) as [IncomingMessage];
  await once(response, 'data');
  request.destroy();
  return response.statusCode;
}

test('no sequence and no cache is left after 50 clients have disconnected mid-stream', async () => {
  await pair.services.ready(5000);
  const clients = Array.from({ length: 50 }, (_, i) => hangUpAfterFirstEvent(i));
  expect(await Promise.all(clients)).toEqual(new Array(50).fill(200));
  expect(finished).toBeLessThan(25);
  const empty = { sequences: 0, cacheBytes: 0 };
  await expect.poll(() => [pair.target.usage(), pair.draft.usage()], { timeout: 15_000 }).toEqual([empty, empty]);
  const answer = await postJson(server.url, 'v1/completions', {
    prompt: 'export ',
    max_tokens: 10,
    seed: 1,
    model: 'tiny',
  });
  expect(answer).toMatchObject({ object: 'text_completion', model: 'tiny' });
});

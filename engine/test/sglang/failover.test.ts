import { beforeAll, describe, expect, test } from 'vitest';
import { openTargetEngine, type SglangOptions } from '../../src/sglang/engine.ts';
import { FakeSglang, type Fault } from '../../src/testing/fake-sglang.ts';
import type { MetaInfo } from '../../src/testing/fake-sglang-answer.ts';
import { hashScorer } from '../../src/testing/token-scores.ts';
import type { TargetEngine } from '../../src/types.ts';
import { dir, openOn, startFake, times, vocabulary } from './servers.ts';

const sampling = { temperature: 1, topK: 0, topP: 0.9 };
const uniforms = { seed: 5n, offset: 0 };

/** Generates a text on a new sequence, with drafts of wrong tokens. `between` runs before each step. */
async function generate(engine: TargetEngine, length: number, between: (step: number) => unknown = () => {}) {
  const sequence = engine.open();
  const text = [1, 2, 3];
  try {
    await engine.reusePrefix(sequence, text.slice(0, -1));
    await engine.run([{ sequence, at: 0, tokens: text.slice(0, -1) }]);
    for (let step = 0; step < length; step++) {
      await between(step);
      const tokens = [text.at(-1) as number, 9, 9];
      const { outputs } = await engine.run([{ sequence, at: text.length - 1, tokens, sampling, uniforms }]);
      text.push(outputs[0]?.picks[0] as number);
    }
    return text;
  } finally {
    engine.close(sequence);
  }
}

/** Returns options of a server that fails each request to /generate whose index is a hit. */
const failing = (fault: Fault, isHit: (index: number) => boolean) => ({
  fault: (_: unknown, index: number) => (isHit(index) ? fault : undefined),
});

let expected: number[];
beforeAll(async () => {
  const fake = await FakeSglang.start({ vocabulary, score: hashScorer(vocabulary) });
  const engine = await openTargetEngine({ dir, address: fake.url });
  expected = await generate(engine, 20);
  await engine.dispose();
  await fake.stop();
});

const altered = (alter: (meta: MetaInfo) => void): Fault => ({ alter });
const faults: [string, Fault, Partial<SglangOptions>?][] = [
  ['a connection closed before the answer', { cut: 'before' }],
  ['a connection closed within the answer', { cut: 'middle' }],
  ['status 500', { status: 500 }],
  ['status 503', { status: 503 }],
  ['status 429', { status: 429 }],
  ['text that is no JSON', { text: 'Internal Server Error' }],
  ['NaN in JSON', { text: '{"meta_info": {"prompt_tokens": NaN}}' }],
  ['an empty answer', { text: '' }],
  ['half an answer', { text: '{"meta_info": {"prompt_tok' }],
  ['no answer in time', { delayMs: 2000 }, { requestTimeoutMs: 100 }],
  ['an aborted request', altered((meta) => (meta.finish_reason = { type: 'abort', message: 'out of memory' }))],
  ['a truncated list', altered((meta) => meta.input_top_logprobs.at(-1)?.pop())],
  ['a missing position', altered((meta) => meta.input_top_logprobs.pop())],
  ['NaN', altered((meta) => meta.input_top_logprobs.at(-1)?.[0]?.splice(0, 1, Number.NaN))],
  ['a wrong count of tokens', altered((meta) => meta.prompt_tokens++)],
];

describe('a sequence gets the same text', () => {
  test.each(faults)('after %s', async (_, fault, options = {}) => {
    // A single server gets each failed request again, after it has passed a check.
    const one = await openOn([await startFake(failing(fault, (index) => index === 4 || index === 9))], options);
    expect(await generate(one, 20)).toEqual(expected);
    // All later requests to one server fail, so the sequence continues at the other.
    const bad = await startFake(failing(fault, (index) => index >= 4));
    const two = await openOn([bad, await startFake()], options);
    expect(await generate(two, 20)).toEqual(expected);
  });

  test('when its server hangs for longer than requests are repeated', async () => {
    const hanging = await startFake(failing({ delayMs: 5000 }, (index) => index >= 4));
    const options = { requestTimeoutMs: 400, times: { ...times, retryMs: 100 } };
    expect(await generate(await openOn([hanging, await startFake()], options), 20)).toEqual(expected);
  });

  test('when its server goes down, comes back, and the other one goes down', async () => {
    let [a, b]: [FakeSglang, FakeSglang] = [await startFake(), await startFake()];
    const ports = [a.port, b.port];
    const logged: string[] = [];
    const info = ({ server = '' }, message: string) => logged.push(`${server} ${message}`);
    const engine = await openOn([a, b], { logger: { info } as never });
    const text = await generate(engine, 20, async (step) => {
      if (step === 4) await a.stop();
      if (step === 9) a = await startFake({}, ports[0]);
      if (step === 9) await expect.poll(() => a.requests.length, { timeout: 5000 }).toBeGreaterThan(0);
      if (step === 12) await b.stop();
      if (step === 16) b = await startFake({}, ports[1]);
    });
    expect(text).toEqual(expected);
    expect(a.requests.length).toBeGreaterThan(4);
    const [failed, works] = ['an SGLang server has failed', 'an SGLang server can be used'];
    expect(logged.slice(0, 3)).toEqual([`${a.url} ${failed}`, `${a.url} ${works}`, `${b.url} ${failed}`]);
  });

  test('when its only server is away for a moment', async () => {
    let fake = await startFake();
    const { port } = fake;
    const engine = await openOn([fake]);
    const text = await generate(engine, 20, async (step) => {
      if (step !== 7) return;
      await fake.stop();
      setTimeout(() => void startFakeLater(), 150);
    });
    async function startFakeLater() {
      fake = await startFake({}, port);
    }
    expect(text).toEqual(expected);
  });
});

describe('sequences', () => {
  test('are spread over the servers, and stay there', async () => {
    const fakes = [await startFake(), await startFake()];
    const engine = await openOn(fakes);
    const before = fakes.map(({ requests }) => requests.length);
    const texts = await Promise.all([1, 2, 3, 4].map(() => generate(engine, 10)));
    for (const text of texts) expect(text).toEqual(expected.slice(0, 13));
    const counts = fakes.map(({ requests }, i) => requests.length - (before[i] as number));
    expect(counts[0]).toBe(counts[1]);
    expect(counts[0]).toBeGreaterThanOrEqual(22);
  });

  test('fail alone if a server rejects a request, naming the server', async () => {
    const fault = { status: 400, text: '{"error": {"message": "top_logprobs_num is too large"}}' };
    const fake = await startFake(failing(fault, (index) => index === 3));
    const engine = await openOn([fake]);
    await expect(generate(engine, 20)).rejects.toMatchObject({
      code: 'internal',
      message: `${fake.url} answered /generate with status 400: ${fault.text}`,
    });
    expect(await generate(engine, 20)).toEqual(expected);
  });

  test('fail after three wrong answers, naming server, field and value', async () => {
    const wrong = altered((meta) => meta.prompt_tokens++);
    const fake = await startFake({ fault: ({ logprob_start_len: at = 0 }) => (at >= 4 ? wrong : undefined) });
    const engine = await openOn([fake]);
    await expect(generate(engine, 20)).rejects.toMatchObject({
      code: 'internal',
      message: expect.stringMatching(
        `${fake.url} answered /generate wrongly: .meta_info.prompt_tokens. must be \\d+, got`,
      ),
    });
    expect(fake.requests.filter(({ logprob_start_len: at = 0 }) => at >= 4)).toHaveLength(3);
  });

  test('fail if no server answers in time; the cause names the server', async () => {
    const fake = await startFake();
    const engine = await openOn([fake], { times: { ...times, retryMs: 300, deathMs: 60_000 } });
    const text = generate(engine, 20, (step) => step === 3 && fake.stop());
    await expect(text).rejects.toMatchObject({
      code: 'unavailable',
      message: 'no SGLang server answers',
      cause: { message: expect.stringContaining(`${fake.url} did not answer`) },
    });
    expect(engine.usage().sequences).toBe(0);
  });
});

describe('the engine', () => {
  test('dies if no server answers for a while', async () => {
    const fakes = [await startFake(), await startFake()];
    const engine = await openOn(fakes);
    await fakes[0]?.stop();
    expect(await generate(engine, 5)).toEqual(expected.slice(0, 8));
    await fakes[1]?.stop();
    expect(await engine.died).toMatchObject({ code: 'unavailable', message: 'no SGLang server answers' });
    expect(() => engine.open()).toThrow('no SGLang server answers');
  });

  test('uses a server that was down at the start once it is up, unless it has another model', async () => {
    const [first, second] = [await startFake(), await startFake()];
    const { port } = second;
    await second.stop();
    const engine = await openOn([first, second]);
    const score = async (ids: readonly number[], from: number) => ids.slice(from).map(() => new Float32Array(257));
    const other = await startFake({ score }, port);
    await expect.poll(() => other.requests.length).toBeGreaterThan(0);
    expect(await generate(engine, 5)).toEqual(expected.slice(0, 8));
    await other.stop();
    const same = await startFake({}, port);
    await expect.poll(() => same.requests.length).toBeGreaterThan(0);
    await expect
      .poll(async () => (await Promise.all([generate(engine, 2), generate(engine, 2)])) && same.requests.length)
      .toBeGreaterThan(2);
  });

  test('stops with requests in flight, which fail', async () => {
    const engine = await openOn([await startFake(failing({ delayMs: 2000 }, (index) => index >= 2))]);
    const run = engine.run([{ sequence: engine.open(), at: 0, tokens: [1], sampling, uniforms }]);
    const [outcome] = await Promise.allSettled([run, engine.dispose()]);
    expect(outcome).toMatchObject({ status: 'rejected', reason: { message: 'the engine has been stopped' } });
  });
});

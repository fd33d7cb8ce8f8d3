import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { events, startServer, type TestServer, tokenByToken, tokenizer, until } from '../testing/test-server.ts';

let server: TestServer;
beforeAll(async () => {
  server = await startServer();
});
afterAll(() => server.close());
beforeEach(() => {
  server.generator.requests.length = 0;
  server.generator.aborted = 0;
});

/** Makes the generator answer every request with `text`, one token per step. */
const say = (text: string) => {
  server.generator.script = () => ({ steps: tokenByToken(text) });
};
const request = (index = 0) => {
  const given = server.generator.requests[index];
  if (!given) throw new Error(`no request ${index}`);
  return given;
};

describe('a completion', () => {
  test("has OpenAI's shape", async () => {
    server.generator.script = () => ({ steps: [tokenizer.encode('let x = 1;')], reusedTokens: 2 });
    const response = await server.complete({ prompt: 'const', max_tokens: 100 });
    expect(response.status).toBe(200);
    const body = await response.json();
    const tokens = tokenizer.encode('let x = 1;').length;
    const prompt = tokenizer.encode('const').length + 1;
    expect(body).toEqual({
      id: expect.stringMatching(/^cmpl-\w+$/),
      object: 'text_completion',
      created: expect.closeTo(Date.now() / 1000, -1),
      model: 'test-model',
      system_fingerprint: expect.stringContaining('test-model'),
      choices: [{ index: 0, text: 'let x = 1;', logprobs: null, finish_reason: 'stop' }],
      usage: {
        prompt_tokens: prompt,
        completion_tokens: tokens,
        total_tokens: prompt + tokens,
        prompt_tokens_details: { cached_tokens: 2 },
        completion_tokens_details: { accepted_prediction_tokens: tokens - 1, rejected_prediction_tokens: 1 },
      },
    });
  });

  test('streams chunks, then [DONE]', async () => {
    say('let x');
    const response = await server.complete({ prompt: 'a', stream: true, max_tokens: 50 });
    expect(response.headers.get('content-type')).toBe('text/event-stream; charset=utf-8');
    const data = await events(response);
    expect(data.pop()).toBe('[DONE]');
    const chunks = data.map((event) => JSON.parse(event));
    expect(chunks.map((chunk) => chunk.choices[0].text).join('')).toBe('let x');
    expect(chunks.map((chunk) => chunk.choices[0].finish_reason).filter(Boolean)).toEqual(['stop']);
    expect(new Set(chunks.map((chunk) => chunk.id)).size).toBe(1);
    expect(chunks[0]).toMatchObject({ object: 'text_completion', model: 'test-model' });
    expect(chunks[0]).not.toHaveProperty('usage');
  });

  test('streams the usage on request, in a chunk without choices', async () => {
    say('let x');
    const data = await events(
      await server.complete({ prompt: 'a', stream: true, max_tokens: 50, stream_options: { include_usage: true } }),
    );
    const chunks = data.slice(0, -1).map((event) => JSON.parse(event));
    const last = chunks.pop();
    expect(last.choices).toEqual([]);
    expect(last.usage).toMatchObject({ prompt_tokens: 2, completion_tokens: tokenizer.encode('let x').length });
    expect(chunks.every((chunk) => chunk.usage === null)).toBe(true);
  });

  test('has 16 tokens by default', async () => {
    server.generator.script = () => ({ steps: [[5, 6, 7]], endless: true });
    const { choices, usage } = await (await server.complete({ prompt: 'a' })).json();
    expect(choices[0].finish_reason).toBe('length');
    expect(usage.completion_tokens).toBe(16);
  });

  test('has fewer if the context has less room', async () => {
    server.generator.script = () => ({ steps: [[5]], endless: true });
    const { usage } = await (await server.complete({ prompt: Array(510).fill(5) })).json();
    expect(usage).toMatchObject({ prompt_tokens: 510, completion_tokens: 2 });
  });
});

describe('prompts', () => {
  const prompts = async (prompt: unknown) => {
    say('x');
    const response = await server.complete({ prompt });
    expect(response.status).toBe(200);
    await response.json();
    return server.generator.requests.map((given) => given.prompt);
  };

  test.each([
    ['a text starts after the end-of-text token', 'ab', [[0, ...tokenizer.encode('ab')]]],
    [
      'texts',
      ['a', 'b'],
      [
        [0, ...tokenizer.encode('a')],
        [0, ...tokenizer.encode('b')],
      ],
    ],
    ['token ids are taken as they are', [5, 6], [[5, 6]]],
    ['lists of token ids', [[5, 6], [7]], [[5, 6], [7]]],
    ['an empty text is the end-of-text token', '', [[0]]],
    ['an empty array', [], [[0]]],
    ['an empty list of token ids', [[]], [[0]]],
    ['none', null, [[0]]],
  ])('%s', async (_, prompt, expected) => {
    expect(await prompts(prompt)).toEqual(expected);
  });

  test('get one choice each, in order', async () => {
    server.generator.script = ({ prompt }) => ({ steps: [prompt], delayMillis: prompt[0] === 40 ? 30 : 0 });
    const { choices, usage } = await (await server.complete({ prompt: [[40], [41, 42]] })).json();
    expect(choices.map(({ text }: { text: string }) => text)).toEqual(['H', 'IJ']);
    expect(usage).toMatchObject({ prompt_tokens: 3, completion_tokens: 3, total_tokens: 6 });
  });
});

describe('parameters', () => {
  beforeEach(() => say('x'));

  test('reach the generator', async () => {
    const body = { temperature: 0.5, top_p: 0.9, top_k: 40, seed: 7, max_tokens: 3, ptp: { draft: false } };
    await (await server.complete({ prompt: 'a', ...body })).json();
    const sampling = { temperature: 0.5, topP: 0.9, topK: 40 };
    expect(request()).toMatchObject({ sampling, seed: 7n, maxTokens: 3, drafting: false, draftLimits: {} });
  });

  test('control drafting', async () => {
    const ptp = { draft_length: 3, draft_mode: 'sequential' };
    await (await server.complete({ prompt: 'a', max_tokens: 3, ptp })).json();
    expect(request()).toMatchObject({ drafting: true, draftLimits: { length: 3, mode: 'sequential' } });
  });

  test('have defaults, for null too', async () => {
    const none = { temperature: null, top_p: null, top_k: -1, n: null, stop: null, stream: null, stream_options: null };
    await (await server.complete({ prompt: 'a', ...none })).json();
    expect(request()).toMatchObject({ sampling: { temperature: 1, topP: 1, topK: 0 }, drafting: true });
  });

  test.each([
    ['-1', 2n ** 64n - 1n],
    ['9223372036854775807', 2n ** 63n - 1n],
    ['-9223372036854775808', 2n ** 63n],
    ['1234567890123456789', 1234567890123456789n],
  ])('seed %s is exact', async (seed, expected) => {
    const response = await server.post('/v1/completions', `{"prompt": "a", "seed": ${seed}}`);
    expect(response.status).toBe(200);
    expect(request().seed).toBe(expected);
  });

  test('the seed is random by default', async () => {
    await server.complete({ prompt: 'a' });
    await server.complete({ prompt: 'a' });
    expect(request(0).seed).not.toBe(request(1).seed);
  });

  test('choice i of every prompt has seed + i mod 2^64', async () => {
    await (await server.complete({ prompt: ['a', 'b'], n: 2, seed: -1 })).json();
    const max = 2n ** 64n - 1n;
    expect(server.generator.requests.map(({ seed }) => seed)).toEqual([max, 0n, max, 0n]);
  });

  test('are ignored if unknown or without effect', async () => {
    const neutral = { logprobs: null, echo: false, suffix: '', logit_bias: {}, presence_penalty: 0, best_of: 1 };
    const response = await server.complete({ prompt: 'a', user: 'me', no_such_field: { a: [1] }, ...neutral });
    expect(response.status).toBe(200);
  });
});

describe('text', () => {
  const streamed = async (body: object) => {
    const chunks = (await events(await server.complete({ prompt: 'a', stream: true, max_tokens: 100, ...body })))
      .slice(0, -1)
      .map((event) => JSON.parse(event).choices[0]);
    return { pieces: chunks.map(({ text }) => text).filter(Boolean), finish: chunks.at(-1)?.finish_reason };
  };

  test('never contains incomplete characters', async () => {
    say('a😀b');
    expect(tokenizer.encode('a😀b').length).toBeGreaterThan(4);
    expect(await streamed({})).toEqual({ pieces: ['a', '😀', 'b'], finish: 'stop' });
  });

  test('ends before a stop string that spans tokens', async () => {
    server.generator.script = () => ({ steps: [[...tokenizer.encode('let x = 1;\n'), ...tokenizer.encode('let y')]] });
    const { pieces, finish } = await streamed({ stop: '1;\nl' });
    expect(pieces.join('')).toBe('let x = ');
    expect(finish).toBe('stop');
  });

  test('includes text that only began like a stop string', async () => {
    say('one two');
    expect((await streamed({ stop: ['two!', 'three'] })).pieces.join('')).toBe('one two');
  });

  test('ends the generation at a stop string and counts no token after it', async () => {
    const ids = [...'abcdef'].flatMap((letter) => tokenizer.encode(letter));
    const usages: unknown[] = [];
    for (const steps of [[ids], ids.map((id) => [id])]) {
      server.generator.script = () => ({ steps, endless: true });
      const { choices, usage } = await (await server.complete({ prompt: 'a', stop: ['d'], max_tokens: 100 })).json();
      expect(choices[0]).toMatchObject({ text: 'abc', finish_reason: 'stop' });
      usages.push(usage.completion_tokens);
    }
    expect(usages).toEqual([4, 4]);
    await until(() => server.generator.running === 0);
  });
});

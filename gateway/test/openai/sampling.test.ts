import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { events, startServer, type TestServer, tokenByToken, tokenizer } from '../testing/test-server.ts';

let server: TestServer;
beforeAll(async () => {
  server = await startServer();
});
afterAll(() => server.close());
beforeEach(() => {
  server.generator.requests.length = 0;
  server.generator.script = () => ({ steps: [tokens.slice(0, 2), tokens.slice(2)] });
});

const tokens = tokenizer.encode('let é = 1;');
const names = tokens.map((id) => new TextDecoder().decode(tokenizer.bytes(id)));
const messages = [{ role: 'user', content: 'hi' }];

test('min_tokens holds back stop strings', async () => {
  const text = 'let x = 1; let y = 2; let z = 3;';
  server.generator.script = () => ({ steps: tokenByToken(text) });
  const upTo = (part: string) => tokenizer.encode(part).length;
  const answer = async (fields: object) => {
    const request = { prompt: 'a', max_tokens: 50, stop: [';'], ...fields };
    const { choices } = await (await server.complete(request)).json();
    return [choices[0].text, choices[0].finish_reason];
  };
  expect(await answer({})).toEqual(['let x = 1', 'stop']);
  expect(await answer({ min_tokens: upTo('let x = 1;') })).toEqual(['let x = 1; let y = 2', 'stop']);
  expect(await answer({ min_tokens: upTo('let x = 1;') - 1 })).toEqual(['let x = 1', 'stop']);
  expect(await answer({ min_tokens: upTo('let x = 1; let y'), ignore_eos: true })).toEqual([
    'let x = 1; let y = 2',
    'stop',
  ]);
  expect(await answer({ min_tokens: 50 })).toEqual([text, 'stop']);
});

describe('sampling fields', () => {
  test('reach the generator', async () => {
    const fields = {
      temperature: 0.5,
      min_p: 0.1,
      logit_bias: { '7': -3, '9': 2.5 },
      presence_penalty: 0.5,
      frequency_penalty: -0.5,
      repetition_penalty: 1.2,
      stop_token_ids: [11],
      min_tokens: 3,
      max_tokens: 8,
    };
    for (const response of [
      await server.complete({ prompt: 'a', ...fields }),
      await server.chat({ messages, ...fields }),
    ])
      expect(response.status).toBe(200);
    expect(server.generator.requests).toHaveLength(2);
    for (const request of server.generator.requests) {
      expect(request).toMatchObject({
        sampling: { temperature: 0.5, topK: 0, topP: 1, minP: 0.1 },
        stopTokens: [11],
        adjustments: {
          logitBias: new Map([
            [7, -3],
            [9, 2.5],
          ]),
          presencePenalty: 0.5,
          frequencyPenalty: -0.5,
          repetitionPenalty: 1.2,
          heldBack: [0, 11],
          heldBackUntil: 3,
        },
      });
      expect(request).not.toHaveProperty('topCount');
    }
  });

  test('are left out if they have no effect', async () => {
    const neutral = { logit_bias: {}, presence_penalty: 0, frequency_penalty: null, repetition_penalty: 1, min_p: 0 };
    await server.complete({ prompt: 'a', ...neutral, stop_token_ids: [], ignore_eos: false, min_tokens: 0 });
    const [request] = server.generator.requests;
    for (const field of ['adjustments', 'stopTokens', 'ignoreEndOfText']) expect(request).not.toHaveProperty(field);
    expect(request?.sampling).toEqual({ temperature: 1, topK: 0, topP: 1 });
  });

  test('hold back no end of text with ignore_eos', async () => {
    await server.complete({ prompt: 'a', ignore_eos: true, min_tokens: 2, stop_token_ids: [4] });
    expect(server.generator.requests[0]).toMatchObject({ ignoreEndOfText: true, adjustments: { heldBack: [4] } });
  });

  test.each([
    [{ min_p: 1.5 }, 'min_p', '`min_p` must be in [0, 1], got 1.5'],
    [{ logit_bias: { 2048: 1 } }, 'logit_bias', '`logit_bias` must be of token ids in [0, 2047], got 2048'],
    [{ logit_bias: { 5: 200 } }, 'logit_bias[5]', '`logit_bias[5]` must be in [-100, 100], got 200'],
    [{ logit_bias: [1] }, 'logit_bias', '`logit_bias` must be an object of numbers by token id, got an array of 1'],
    [{ presence_penalty: 3 }, 'presence_penalty', '`presence_penalty` must be in [-2, 2], got 3'],
    [{ repetition_penalty: -1 }, 'repetition_penalty', '`repetition_penalty` must be in (0, 10], got -1'],
    [{ stop_token_ids: [-1] }, 'stop_token_ids[0]', '`stop_token_ids[0]` must be a token id, got -1'],
    [{ min_tokens: 9, max_tokens: 8 }, 'min_tokens', '`min_tokens` must be at most `max_tokens` (8), got 9'],
    [{ logprobs: 21 }, 'logprobs', '`logprobs` must be an integer in [0, 20], got 21'],
  ])('rejects %j', async (fields, param, message) => {
    const response = await server.complete({ prompt: 'a', ...fields });
    expect(response.status).toBe(400);
    expect((await response.json()).error).toMatchObject({ param, message });
  });

  test.each(['x', '', '-0', '0x10', '1e2', '+5', ' 5', '5.0', '05'])(
    'the key %j of logit_bias is no token',
    async (key) => {
      const response = await server.complete({ prompt: 'a', logit_bias: { [key]: 1 } });
      expect((await response.json()).error).toMatchObject({
        param: 'logit_bias',
        message: `\`logit_bias\` must be keyed by token ids in [0, 2047], got ${JSON.stringify(key)}`,
      });
    },
  );

  test('top_logprobs requires logprobs', async () => {
    const response = await server.chat({ messages, top_logprobs: 2 });
    expect((await response.json()).error).toMatchObject({
      param: 'top_logprobs',
      message: '`top_logprobs` must be absent or 0 unless `logprobs` is true, got 2',
    });
  });
});

describe('log-probabilities', () => {
  const alternative = (id: number) => {
    const bytes = [...tokenizer.bytes(id)];
    return { token: new TextDecoder().decode(Uint8Array.from(bytes)) || tokenizer.name(id), bytes };
  };

  test('of a completion have the format of OpenAI', async () => {
    const body = await (await server.complete({ prompt: 'a', max_tokens: 50, logprobs: 1 })).json();
    const { logprobs, text } = body.choices[0];
    expect(text).toBe('let é = 1;');
    expect(logprobs.tokens).toEqual(['le', 't', ' ', 'bytes:\\xc3', 'bytes:\\xa9', ' =', ' 1', ';']);
    expect(logprobs.token_logprobs).toEqual(tokens.map(() => -1));
    expect(logprobs.top_logprobs).toEqual(logprobs.tokens.map((name: string) => ({ [name]: -1 })));
    expect(logprobs.text_offset).toEqual([0, 2, 3, 4, 4, 5, 7, 9]);
  });

  test('of a chat have bytes and alternatives', async () => {
    const body = { messages, logprobs: true, top_logprobs: 2, max_tokens: 50 };
    const response = await (await server.chat(body)).json();
    const { content } = response.choices[0].logprobs;
    expect(content.map(({ token }: { token: string }) => token)).toEqual(names);
    expect(content[0]).toEqual({
      token: names[0],
      bytes: [...tokenizer.bytes(tokens[0] as number)],
      logprob: -1,
      top_logprobs: [0, 1].map((rank) => ({ ...alternative((tokens[0] as number) + rank), logprob: -1 - rank })),
    });
  });

  test('are streamed with their tokens', async () => {
    const data = await events(await server.chat({ messages, logprobs: true, stream: true, max_tokens: 50 }));
    data.pop();
    const choices = data.map((event) => JSON.parse(event).choices[0]);
    const content = choices.flatMap((choice) => choice.logprobs?.content ?? []);
    expect(content.map(({ token }) => token)).toEqual(names);
    expect(content.every(({ top_logprobs }) => top_logprobs.length === 0)).toBe(true);
    expect(choices.map((choice) => choice.delta.content ?? '').join('')).toBe('let é = 1;');
  });

  test('are null unless requested', async () => {
    const body = await (await server.complete({ prompt: 'a', max_tokens: 50 })).json();
    expect(body.choices[0].logprobs).toBeNull();
    expect(server.generator.requests[0]).not.toHaveProperty('topCount');
  });

  test('end with the token that completes a stop string', async () => {
    const body = await (await server.complete({ prompt: 'a', max_tokens: 50, logprobs: 0, stop: ' =' })).json();
    const { text, logprobs } = body.choices[0];
    expect(text).toBe('let é');
    const last = names.findIndex((name) => name.includes('='));
    expect(logprobs.tokens).toEqual(['le', 't', ' ', 'bytes:\\xc3', 'bytes:\\xa9', ' ='].slice(0, last + 1));
    expect(body.usage.completion_tokens).toBe(logprobs.tokens.length);
  });
});

describe('ptp.trace', () => {
  test('lists the steps of an answer that is not streamed', async () => {
    const response = await server.complete({ prompt: 'a', max_tokens: 50, n: 2, ptp: { trace: true } });
    const { choices } = await response.json();
    for (const { ptp } of choices) expect(ptp).toMatchObject([{ step: 0, drafted: 2 }, { step: 1 }]);
    const untraced = await server.complete({ prompt: 'a', max_tokens: 50 });
    expect((await untraced.json()).choices[0]).not.toHaveProperty('ptp');
  });

  test('reports in each chunk of a stream what its step did, token by token', async () => {
    const response = await server.complete({ prompt: 'a', max_tokens: 50, stream: true, ptp: { trace: true } });
    const chunks = (await events(response)).slice(0, -1).map((event) => JSON.parse(event));
    const traces = chunks.flatMap(({ ptp }) => ptp ?? []);
    expect(traces.map(({ step }) => step)).toEqual([0, 1]);
    expect(traces[0]).toMatchObject({
      mode: 'sequential',
      source: 'drafter',
      drafted: 2,
      accepted: 1,
      tokens: [
        { id: tokens[0], text: names[0], source: 'drafter' },
        { id: tokens[1], text: names[1], source: 'target' },
      ],
      rejected: [{ id: 1, text: new TextDecoder().decode(tokenizer.bytes(1)) }],
    });
    const reported = traces.flatMap((trace) => trace.tokens.map(({ id }: { id: number }) => id));
    expect(reported).toEqual(tokens);
  });

  test('reports a character that spans several tokens with the last of them', async () => {
    const smile = tokenizer.encode('😀');
    expect(smile.length).toBe(4);
    // In each step, the last token is the target's own, and one more drafted token was rejected.
    server.generator.script = () => ({ steps: [smile.slice(0, 3), smile.slice(3)] });
    const response = await server.complete({ prompt: 'a', max_tokens: 50, stream: true, ptp: { trace: true } });
    const traces = (await events(response))
      .slice(0, -1)
      .map((event) => JSON.parse(event).ptp)
      .filter(Boolean);
    const texts = traces.map(({ tokens }) => tokens.map(({ text }: { text: string }) => text));
    expect(texts).toEqual([['', '', ''], ['😀']]);
  });

  test('is absent unless requested', async () => {
    const response = await server.complete({ prompt: 'a', max_tokens: 50, stream: true });
    for (const event of (await events(response)).slice(0, -1)) expect(JSON.parse(event)).not.toHaveProperty('ptp');
  });
});

describe('prediction', () => {
  test('is the only source that counts as accepted or rejected, if the request has one', async () => {
    const counted = async (source: 'prediction' | 'drafter', prediction: object | undefined) => {
      server.generator.script = () => ({ steps: [tokens.slice(0, 3), tokens.slice(3)], source });
      const response = await server.chat({ messages, prediction, max_tokens: 50 });
      return (await response.json()).usage.completion_tokens_details;
    };
    // In each step, all tokens but the last are accepted drafts, and one more drafted token was rejected.
    const all = { accepted_prediction_tokens: tokens.length - 2, rejected_prediction_tokens: 2 };
    const given = { type: 'content', content: 'let é' };
    expect(await counted('prediction', given)).toEqual(all);
    expect(await counted('drafter', given)).toEqual({ accepted_prediction_tokens: 0, rejected_prediction_tokens: 0 });
    expect(await counted('drafter', undefined)).toEqual(all);
  });

  test('reaches the generator as tokens, and only its tokens count', async () => {
    const prediction = { type: 'content', content: [{ type: 'text', text: 'let é' }] };
    const response = await server.chat({ messages, prediction, max_tokens: 50 });
    expect(server.generator.requests[0]?.prediction).toEqual(tokenizer.encode('let é'));
    const { usage } = await response.json();
    // The scripted generator attributes all drafts to the drafter.
    const none = { accepted_prediction_tokens: 0, rejected_prediction_tokens: 0 };
    expect(usage.completion_tokens_details).toEqual(none);
  });

  test.each([
    [{ type: 'other', content: 'a' }, 'prediction.type'],
    [{ type: 'content' }, 'prediction.content'],
  ])('rejects %j', async (prediction, param) => {
    const response = await server.chat({ messages, prediction });
    expect(response.status).toBe(400);
    expect((await response.json()).error).toMatchObject({ param });
  });
});

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { GenerationRequest } from '../gateway/src/decode/types.ts';
import { stepsOf, tokensOf } from './generated.ts';
import { defaultGguf, ggufMissing } from './gguf.ts';
import { expectNothingLeft, postJson, type Served, serveGateway } from './served.ts';

// Runs the whole server with the default target as a GGUF file. llama.cpp runs the target and the tokenizer, and ONNX
// Runtime runs the drafter.

const START = 60_000;

describe.skipIf(ggufMissing)('a GGUF file over HTTP', { timeout: 60_000 }, () => {
  let server: Served;
  beforeAll(async () => {
    server = await serveGateway(defaultGguf(), { maxStreams: 64, pair: { verifiers: 2 } });
  }, 2 * START);
  afterAll(() => server?.close());

  const post = (path: string, body: object) => postJson(server.url, path, body);
  const prompt = 'export interface A {';
  const messages = [{ role: 'user', content: 'A point.' }];

  test('the model describes its engine', async () => {
    const { data } = await (await fetch(new URL('v1/models', server.url))).json();
    const ptp = { engine: 'llama-cpp', quantization: 'F32', candidate_limit: 1024 };
    expect(data).toMatchObject([{ id: server.id, max_model_len: 512, ptp }]);
  });

  test('text and tokens convert both ways', async () => {
    const text = 'const caf\u00e9 = "<|endoftext|> \ud83d\udc4d";\n';
    const { tokens, max_model_len } = await post('tokenize', { prompt: text, add_special_tokens: false });
    expect(max_model_len).toBe(512);
    expect(await post('detokenize', { tokens })).toEqual({ prompt: text });
    const chat = await post('tokenize', { messages });
    expect(await post('detokenize', { tokens: chat.tokens })).toEqual({ prompt: '/**\n * A point.\n */\n' });
  });

  test('drafts are accepted, and a greedy text is the same without them', async () => {
    const body = { prompt, max_tokens: 40, temperature: 0 };
    const drafted = await post('v1/completions', body);
    const plain = await post('v1/completions', { ...body, ptp: { draft: false, prompt_lookup: false } });
    expect(drafted.choices[0].text).toBe(plain.choices[0].text);
    expect(drafted.usage.completion_tokens_details.accepted_prediction_tokens).toBeGreaterThan(0);
    expect(drafted).not.toHaveProperty('warning');
  });

  test('an answer says if it was sampled from the most probable tokens only', async () => {
    const body = { messages, max_tokens: 20, seed: 3 };
    const warning = expect.stringContaining('from only the 1024 most probable tokens');
    expect(await post('v1/chat/completions', body)).toMatchObject({ warning });
    expect(await post('v1/chat/completions', { ...body, top_k: 40 })).not.toHaveProperty('warning');
  });

  test('log-probabilities come with alternatives, of the prompt too', async () => {
    const { choices } = await post('v1/completions', {
      prompt,
      echo: true,
      max_tokens: 4,
      temperature: 0,
      logprobs: 3,
    });
    const { tokens, token_logprobs: logs, top_logprobs: tops } = choices[0].logprobs;
    expect(tokens.slice(0, -4).join('')).toBe(prompt);
    for (let i = 1; i < tokens.length; i++) {
      const best = Math.max(...(Object.values(tops[i]) as number[]));
      // The chosen token is added if it is not among the alternatives.
      expect([3, 4]).toContain(Object.keys(tops[i]).length);
      expect(logs[i]).toBeLessThanOrEqual(best);
      if (i >= tokens.length - 4) expect(logs[i]).toBeCloseTo(best, 5);
    }
  });

  test('constraints hold', async () => {
    const schema = {
      type: 'object',
      properties: { name: { type: 'string', maxLength: 8 }, n: { type: 'integer', minimum: 0, maximum: 99 } },
      required: ['name', 'n'],
    };
    const json = { type: 'json_schema', json_schema: { name: 'a', schema } };
    for (let seed = 0; seed < 3; seed++) {
      const body = { messages, max_tokens: 80, seed, response_format: json };
      const { choices } = await post('v1/chat/completions', body);
      expect(choices[0].finish_reason).toBe('stop');
      expect(JSON.parse(choices[0].message.content)).toEqual({ name: expect.any(String), n: expect.any(Number) });
    }
    const tools = [{ type: 'function', function: { name: 'read', parameters: schema } }];
    const called = await post('v1/chat/completions', { messages, tools, tool_choice: 'required', max_tokens: 120 });
    const [call] = called.choices[0].message.tool_calls;
    expect(call.function.name).toBe('read');
    expect(JSON.parse(call.function.arguments)).toMatchObject({ n: expect.any(Number) });
  });

  const greedy = (maxTokens: number): GenerationRequest => ({
    prompt: [0, 100, 101, 102],
    sampling: { temperature: 0, topK: 0, topP: 1 },
    seed: 1n,
    maxTokens,
    ignoreEndOfText: true,
  });

  test('a stream whose verifier is lost continues on another verifier with the same text', async () => {
    const { generator } = server.pair;
    const expected = tokensOf(await stepsOf(generator, greedy(60)));
    const found: number[] = [];
    let restarted: Promise<void> | undefined;
    for await (const { tokens } of generator.generate(greedy(60), new AbortController().signal)) {
      found.push(...tokens);
      // Either verifier may have the stream, so kill one after the other.
      if (found.length > 15 && !restarted) {
        restarted = server.pair
          .stopVerifier(0)
          .then(() => server.pair.startVerifier(0))
          .then(() => server.pair.stopVerifier(1))
          .then(() => server.pair.startVerifier(1));
      }
    }
    await restarted;
    expect(found).toEqual(expected);
  });

  test('a verifier that stops lets its streams finish', async () => {
    await server.pair.services.ready(5000);
    const { generator } = server.pair;
    const found: number[] = [];
    let drained: Promise<unknown> | undefined;
    for await (const { tokens } of generator.generate(greedy(40), new AbortController().signal)) {
      found.push(...tokens);
      drained ??= Promise.all([0, 1].map((i) => server.pair.stopVerifier(i, START)));
    }
    await drained;
    expect(found).toHaveLength(40);
    await Promise.all([0, 1].map((i) => server.pair.startVerifier(i)));
    await server.pair.services.ready(5000);
  });

  test('clients that disconnect leave no sequence behind', () => expectNothingLeft(server, prompt, 20));
});

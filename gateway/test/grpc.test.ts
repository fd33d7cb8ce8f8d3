import { connect } from '@ptp/protocol/client';
import { PtpError } from '@ptp/protocol/errors';
import { GenerationService } from '@ptp/protocol/gen/ptp/v1/generation_pb';
import { serve } from '@ptp/protocol/server';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { silent } from '../../test/test-pair.ts';
import { Admission } from '../src/access/admission.ts';
import { ApiKeys } from '../src/access/api-keys.ts';
import type { GrammarState } from '../src/decode/types.ts';
import { GrammarCache } from '../src/grammar/cache.ts';
import { generationService } from '../src/grpc.ts';
import { ScriptedGenerator } from './testing/scripted-generator.ts';
import { tokenByToken, tokenizer, until } from './testing/test-server.ts';

const generator = new ScriptedGenerator({ engine: 'llama-cpp', quantization: 'Q8_0', candidateLimit: 1024 });
let server: Awaited<ReturnType<typeof serve>>;
let client: ReturnType<typeof connect<typeof GenerationService>>;

beforeAll(async () => {
  const grammars = new GrammarCache(tokenizer, generator.model);
  const service = generationService({
    generator,
    tokenizer,
    grammars,
    admission: new Admission(2),
    keys: new ApiKeys([]),
  });
  server = await serve({ address: '127.0.0.1:0', logger: silent, services: [service], stallMillis: 500 });
  client = connect(GenerationService, server.address);
});

beforeEach(() => {
  generator.requests.length = 0;
  generator.script = () => ({ steps: tokenByToken('interface Café { x: 1 }') });
});

afterAll(async () => {
  client.close();
  await server.close(0);
});

type Request = Parameters<typeof client.generate>[0];

async function collect(request: Request) {
  const messages = [];
  for await (const message of client.generate(request)) messages.push(message);
  return messages;
}

const prompt = { case: 'text', value: 'export ' } as const;

describe('GenerationService', () => {
  test('streams text, tokens and step statistics, the seed first and the finish reason last', async () => {
    const messages = await collect({ prompt, seed: 7n, maxTokens: 100 });
    expect(messages.map(({ text }) => text).join('')).toBe('interface Café { x: 1 }');
    expect(messages.flatMap(({ tokens }) => tokens)).toEqual(tokenizer.encode('interface Café { x: 1 }'));
    expect(messages.map(({ step }) => step?.step)).toEqual(messages.map((_, i) => i));
    expect(messages.map(({ finishReason }) => finishReason).filter(Boolean)).toEqual(['stop']);
    expect(messages[0]?.seed).toBe(7n);
    expect(generator.requests[0]).toMatchObject({
      prompt: [0, ...tokenizer.encode('export ')],
      sampling: { temperature: 1, topK: 0, topP: 1 },
      seed: 7n,
      maxTokens: 100,
    });
  });

  test('uses token ids unchanged, and disables top_p if it is absent', async () => {
    await collect({ prompt: { case: 'tokens', value: { ids: [5, 6] } }, sampling: { temperature: 0.5, topK: 3 } });
    expect(generator.requests[0]).toMatchObject({
      prompt: [5, 6],
      sampling: { temperature: 0.5, topK: 3, topP: 1 },
      maxTokens: 510,
    });
  });

  test('ends before a stop string', async () => {
    const messages = await collect({ prompt, stop: ['{ x'] });
    expect(messages.map(({ text }) => text).join('')).toBe('interface Café ');
    expect(messages.at(-1)?.finishReason).toBe('stop');
  });

  test('has no stop string within the first tokens that are held back', async () => {
    const heldBackUntil = tokenizer.encode('interface Café {').length;
    const adjustments = { heldBack: [5], heldBackUntil };
    const messages = await collect({ prompt, stop: ['{', '}'], adjustments });
    expect(messages.map(({ text }) => text).join('')).toBe('interface Café { x: 1 ');
  });

  test('has no tokens after the token that completes a stop string, however many the step committed', async () => {
    const ids = tokenizer.encode('interface Café { x: 1 }');
    const last = ids.findIndex((_, i) => tokenizer.decode(ids.slice(0, i + 1)).includes('{'));
    const tokensOf = async (steps: number[][]) => {
      generator.script = () => ({ steps, finish: 'length' });
      const messages = await collect({ prompt, stop: ['{'], topLogProbabilities: 1 });
      expect(messages.flatMap(({ logProbabilities }) => logProbabilities)).toHaveLength(last + 1);
      expect(messages.flatMap(({ top }) => top)).toHaveLength(last + 1);
      return messages.flatMap(({ tokens }) => tokens);
    };
    expect(await tokensOf([ids])).toEqual(ids.slice(0, last + 1));
    expect(await tokensOf(ids.map((id) => [id]))).toEqual(ids.slice(0, last + 1));
  });

  test('passes draft options on', async () => {
    await collect({ prompt, draft: { length: 2, mode: 'overlap' } });
    await collect({ prompt, draft: { off: true } });
    expect(generator.requests.map(({ drafting, draftLimits }) => ({ drafting, draftLimits }))).toEqual([
      { drafting: true, draftLimits: { length: 2, mode: 'overlap' } },
      { drafting: false, draftLimits: {} },
    ]);
  });

  test('constrains answers to a form', async () => {
    const forms: [NonNullable<Request['form']>, string, string][] = [
      [{ case: 'jsonSchema', value: '{"type":"integer","maximum":9}' }, '7', '10'],
      [{ case: 'jsonObject', value: true }, '{"a":1}', '7'],
      [{ case: 'regex', value: 'a|b+' }, 'bb', 'ab'],
    ];
    for (const [form, right, wrong] of forms) {
      await collect({ prompt, form });
      const start = generator.requests.at(-1)?.grammar;
      const ends = (text: string) =>
        [...tokenizer.encode(text), 0].reduce<GrammarState | undefined>((place, id) => place?.after(id), start) !==
        undefined;
      expect([form, ends(right), ends(wrong)]).toEqual([form, true, false]);
    }
    await collect({ prompt, form: { case: 'jsonObject', value: false } });
    expect(generator.requests.at(-1)).not.toHaveProperty('grammar');
  });

  const refused: [string, Request, object][] = [
    [
      'a schema that is not JSON',
      { prompt, form: { case: 'jsonSchema', value: '{' } },
      { message: '`json_schema` must be the JSON text of a schema, got "{"' },
    ],
    [
      'an unsupported schema',
      { prompt, form: { case: 'jsonSchema', value: '{"items":{"$dynamicRef":"#a"}}' } },
      { message: '`json_schema.items.$dynamicRef` is not supported' },
    ],
    [
      'a schema that is nested too deep',
      { prompt, form: { case: 'jsonSchema', value: `${'['.repeat(50_000)}${']'.repeat(50_000)}` } },
      { message: expect.stringContaining('`json_schema` must be nested at most 200 levels deep') },
    ],
    [
      'a schema with names outside ASCII',
      { prompt, form: { case: 'jsonSchema', value: '{"properties":{"é":{"$dynamicRef":"#a"}}}' } },
      {
        field: 'json_schema.properties.é.$dynamicRef',
        message: '`json_schema.properties.é.$dynamicRef` is not supported',
      },
    ],
    [
      'a form without an end',
      { prompt, form: { case: 'regex', value: 'a' }, ignoreEndOfText: true },
      { message: '`ignore_end_of_text` must be absent with `json_schema`, `json_object` or `regex`, got true' },
    ],
    [
      'an unknown draft mode',
      { prompt, draft: { mode: 'fast' } },
      { message: '`draft.mode` must be one of auto, overlap, sequential, plain, got "fast"' },
    ],
    ['too long a draft', { prompt, draft: { length: 65 } }, { message: '`draft.length` must be at most 64, got 65' }],
    ['no prompt', {}, { code: 'invalid_argument', message: '`prompt` is missing: set text or tokens' }],
    ['an unknown model', { prompt, model: 'gpt' }, { code: 'not_found' }],
    ['17 stop strings', { prompt, stop: Array(17).fill('a') }, { code: 'invalid_argument' }],
    ['an empty stop string', { prompt, stop: [''] }, { code: 'invalid_argument' }],
    [
      'a temperature out of range',
      { prompt, sampling: { temperature: -1 } },
      { code: 'invalid_argument', message: '`temperature` must be in [0, 2], got -1' },
    ],
    [
      'a token outside the vocabulary',
      { prompt: { case: 'tokens', value: { ids: [9999] } } },
      { code: 'invalid_argument', message: '`prompt.tokens[0]` must be in [0, 2047], got 9999' },
    ],
    [
      'a prompt that fills the context',
      { prompt: { case: 'tokens', value: { ids: new Array(512).fill(1) } } },
      { code: 'out_of_range' },
    ],
  ];
  for (const [what, request, error] of refused) {
    test(`rejects ${what} and serves the next`, async () => {
      await expect(collect(request)).rejects.toMatchObject(error);
      expect(generator.requests).toHaveLength(0);
      expect(await collect({ prompt })).not.toHaveLength(0);
    });
  }

  test("reports the generator's error", async () => {
    generator.script = () => ({ steps: [[5]], error: new PtpError('unavailable', 'the verifier is gone') });
    await expect(collect({ prompt })).rejects.toMatchObject({ code: 'unavailable', message: 'the verifier is gone' });
  });

  test('a client that cancels ends the generation and makes room', async () => {
    generator.script = () => ({ steps: [[5]], endless: true, delayMillis: 5 });
    const controller = new AbortController();
    const both = [1, 2].map(async () => {
      for await (const _ of client.generate({ prompt, maxTokens: 500 }, { signal: controller.signal }));
    });
    await until(() => generator.running === 2);
    await expect(collect({ prompt })).rejects.toMatchObject({ code: 'resource_exhausted' });
    controller.abort();
    for (const call of both) await expect(call).rejects.toMatchObject({ code: 'cancelled' });
    await until(() => generator.running === 0);
    generator.script = () => ({ steps: [[5]] });
    expect(await collect({ prompt })).toHaveLength(1);
  });

  test('a client that does not read is cut off, and gets the error once it reads', async () => {
    generator.script = () => ({ steps: [Array(20_000).fill(5)], endless: true });
    const { contextLength } = generator.model;
    Object.assign(generator.model, { contextLength: 100_000_000 });
    const call = client.generate({ prompt, maxTokens: 99_000_000 });
    await until(() => generator.running === 1);
    await until(() => generator.running === 0);
    Object.assign(generator.model, { contextLength });
    generator.script = () => ({ steps: [[5]] });
    // Both sequences have ended.
    expect(await Promise.all([collect({ prompt }), collect({ prompt })])).toMatchObject([[{}], [{}]]);
    const read = async () => {
      for await (const _ of call);
    };
    await expect(read()).rejects.toMatchObject({
      code: 'deadline_exceeded',
      message: 'the client read no data for 500 ms',
    });
  });
});

describe('other methods', () => {
  test('Tokenize returns the ids that Generate would use', async () => {
    const ids = tokenizer.encode('export ');
    expect((await client.tokenize({ text: 'export ' })).ids).toEqual([0, ...ids]);
    expect((await client.tokenize({ text: 'export ', withoutBeginning: true })).ids).toEqual(ids);
    await expect(client.tokenize({ text: 'x'.repeat(20_000) })).rejects.toMatchObject({
      code: 'out_of_range',
      field: 'text',
    });
    await expect(client.tokenize({ text: 'a', model: 'other' })).rejects.toMatchObject({ code: 'not_found' });
  });

  test('a step whose tokens are sampled from the most probable ones only says so', async () => {
    generator.script = () => ({ steps: tokenByToken('declare const x: 1'), truncatedFrom: 1 });
    const messages = await collect({ prompt, maxTokens: 100 });
    expect(messages.map(({ truncated }) => truncated)).toEqual(messages.map((_, i) => i >= 1));
    expect(messages.length).toBeGreaterThan(2);
  });

  test('GetModel reports the model and the health of its services', async () => {
    generator.drafter = false;
    const model = await client.getModel({});
    generator.drafter = true;
    expect(model).toMatchObject({
      modelId: 'test-model',
      vocabularySize: 2048,
      contextLength: 512,
      endOfText: 0,
      verifierReady: true,
      drafterReady: false,
      engine: 'llama-cpp',
      quantization: 'Q8_0',
      candidateLimit: 1024,
    });
    await expect(client.getModel({ model: 'other' })).rejects.toMatchObject({ code: 'not_found' });
  });
});

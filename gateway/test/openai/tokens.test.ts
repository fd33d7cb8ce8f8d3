import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { chatTemplate, startServer, type TestServer, tokenizer } from '../testing/test-server.ts';

let server: TestServer;
beforeAll(async () => {
  server = await startServer();
});
afterAll(() => server.close());

const post = async (path: string, body: unknown) => {
  const response = await server.post(path, body);
  return { status: response.status, body: await response.json() };
};

describe('/tokenize', () => {
  test('encodes a text with the token that precedes it', async () => {
    const ids = tokenizer.encode('let é = 1;');
    const { body } = await post('/tokenize', { model: 'default', prompt: 'let é = 1;', return_token_strs: true });
    const names = [0, ...ids].map((id) => tokenizer.name(id));
    expect(body).toEqual({ count: ids.length + 1, max_model_len: 512, tokens: [0, ...ids], token_strs: names });
    const bare = await post('/tokenize', { prompt: 'let é = 1;', add_special_tokens: false });
    expect(bare.body).toMatchObject({ tokens: ids, token_strs: null });
  });

  test('reads special tokens as such if the request says so', async () => {
    const prompt = 'let<|endoftext|>x';
    const [first, last] = [tokenizer.encode('let'), tokenizer.encode('x')];
    const { body } = await post('/tokenize', { prompt, special_tokens: true });
    expect(body.tokens).toEqual([0, ...first, 0, ...last]);
    const bare = await post('/tokenize', { prompt, special_tokens: true, add_special_tokens: false });
    expect(bare.body.tokens).toEqual([...first, 0, ...last]);
    expect((await post('/tokenize', { prompt })).body.tokens.slice(1)).not.toContain(0);
  });

  test('encodes a conversation like a chat request', async () => {
    const messages = [{ role: 'user' as const, content: 'hi' }];
    const { body } = await post('/tokenize', { messages });
    expect(body.tokens).toEqual(chatTemplate.encode(messages, tokenizer, server.generator.model));
  });

  test.each([
    [{}, 'prompt', '`prompt` must be a string, unless `messages` is given, got nothing'],
    [{ prompt: 5 }, 'prompt', '`prompt` must be a string, got 5'],
    [{ prompt: 'x'.repeat(20_000) }, 'prompt', expect.stringContaining('maximum context length is 512')],
  ])('rejects %j', async (given, param, message) => {
    const { status, body } = await post('/tokenize', given);
    expect(status).toBe(400);
    expect(body.error).toMatchObject({ param, message });
  });

  test('returns 404 for another model', async () => {
    expect((await post('/tokenize', { model: 'other', prompt: 'a' })).status).toBe(404);
  });
});

describe('/detokenize', () => {
  test('decodes the text, to which special tokens contribute nothing', async () => {
    const ids = tokenizer.encode('let é = 1;');
    expect((await post('/detokenize', { tokens: [0, ...ids] })).body).toEqual({ prompt: 'let é = 1;' });
  });

  test.each([
    [{ tokens: 'abc' }, 'tokens', '`tokens` must be an array of token ids, got "abc"'],
    [{ tokens: [1, 2048] }, 'tokens[1]', '`tokens[1]` must be a token id in [0, 2047], got 2048'],
  ])('rejects %j', async (given, param, message) => {
    const { status, body } = await post('/detokenize', given);
    expect(status).toBe(400);
    expect(body.error).toMatchObject({ param, message });
  });
});

test('/version', async () => {
  const response = await fetch(`${server.url}/version`);
  expect(await response.json()).toEqual({ version: expect.stringMatching(/^\d+\.\d+\.\d+$/) });
});

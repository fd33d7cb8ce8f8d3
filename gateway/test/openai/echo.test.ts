import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { events, startServer, type TestServer, tokenizer } from '../testing/test-server.ts';

let server: TestServer;
beforeAll(async () => {
  server = await startServer();
  server.generator.script = () => ({ steps: [tokens.slice(0, 2), tokens.slice(2)] });
});
afterAll(() => server.close());
beforeEach(() => {
  server.generator.requests.length = 0;
});

const tokens = tokenizer.encode('let x = 1;');
const prompt = 'const é = ';
const promptIds = tokenizer.encode(prompt);
const names = [...promptIds, ...tokens].map((id) => new TextDecoder().decode(tokenizer.bytes(id)));

describe('echo', () => {
  test('begins each answer with its prompt', async () => {
    const response = await server.complete({ prompt: [prompt, ''], echo: true, n: 2, max_tokens: 50 });
    const { choices, usage } = await response.json();
    expect(choices.map(({ text }: { text: string }) => text)).toEqual([
      'const é = let x = 1;',
      'const é = let x = 1;',
      'let x = 1;',
      'let x = 1;',
    ]);
    expect(usage.completion_tokens).toBe(4 * tokens.length);
    expect(server.generator.requests.some(({ promptLogprobs }) => promptLogprobs)).toBe(false);
  });

  test('reports log-probabilities of the prompt', async () => {
    const response = await server.complete({ prompt, echo: true, logprobs: 2, max_tokens: 50 });
    const [{ logprobs, text }] = (await response.json()).choices;
    // A token that is a part of a character is named by its bytes.
    const parts: Record<number, string> = { 3: 'bytes:\\xc3', 4: 'bytes:\\xa9' };
    expect(logprobs.tokens).toEqual(names.map((name, i) => parts[i] ?? name));
    // The token that precedes every text is not reported.
    const ofPrompt = promptIds.map((_, n) => -(n + 1) / 4);
    expect(logprobs.token_logprobs).toEqual([...ofPrompt, ...tokens.map(() => -1)]);
    expect(Object.keys(logprobs.top_logprobs[0])).toHaveLength(2);
    expect(text).toBe('const é = let x = 1;');
    expect(logprobs.text_offset.at(-1)).toBe(text.length - 1);
  });

  test('of token ids reports no probability for the first', async () => {
    const response = await server.complete({ prompt: promptIds, echo: true, logprobs: 0, max_tokens: 50 });
    const [{ logprobs, text }] = (await response.json()).choices;
    expect(text).toBe('const é = let x = 1;');
    expect(logprobs.token_logprobs.slice(0, 3)).toEqual([null, -0.25, -0.5]);
    expect(logprobs.top_logprobs[0]).toBeNull();
  });

  test('of special tokens has their text neither in a text nor in token ids', async () => {
    const given = { prompt: 'const<|endoftext|>x', special_tokens: true, echo: true, max_tokens: 50 };
    const [{ text }] = (await (await server.complete(given)).json()).choices;
    expect(text).toBe('constxlet x = 1;');
    expect(server.generator.requests[0]?.prompt).toEqual([
      0,
      ...tokenizer.encode('const'),
      0,
      ...tokenizer.encode('x'),
    ]);
  });

  test('streams the prompt first and ignores stop strings in it', async () => {
    const response = await server.complete({ prompt, echo: true, stream: true, stop: ['é', '1'], max_tokens: 50 });
    const pieces = (await events(response)).slice(0, -1).map((event) => JSON.parse(event).choices[0].text);
    expect(pieces[0]).toBe(prompt);
    expect(pieces.join('')).toBe('const é = let x = ');
  });
});

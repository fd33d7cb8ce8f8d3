import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { GrammarCache } from '../../src/grammar/cache.ts';
import { jsonObject } from '../../src/grammar/json-text.ts';
import { healPrompt } from '../../src/text/token-healing.ts';
import { events, startServer, type TestServer, tokenByToken, tokenizer } from '../testing/test-server.ts';

const model = { vocabulary: 2048, endOfText: 0 };
const grammars = new GrammarCache(tokenizer, model);
const isExtended = (bytes: Uint8Array) => grammars.isExtended(bytes);
const all = Array.from({ length: model.vocabulary }, (_, id) => id);
const bytesOf = (ids: readonly number[]) => Buffer.concat(ids.map((id) => tokenizer.bytes(id)));
const allows = (mask: Uint8Array | undefined) => all.filter((id) => ((mask?.[id >> 3] ?? 0) >> (id & 7)) & 1);

describe('a prompt', () => {
  test.each(['export interface User {\n', 'const lon', 'import { a } from', 'x = (', 'é', 'return "日本'])(
    'loses the tokens at its end that a longer token could replace: %j',
    (text) => {
      const ids = [0, ...tokenizer.encode(text)];
      const parts = healPrompt(ids, tokenizer, isExtended);
      const kept = parts?.prompt ?? ids;
      expect(Buffer.concat([bytesOf(kept), parts?.healed ?? Buffer.of()]).toString()).toBe(text);
      expect(ids.slice(0, kept.length)).toEqual(kept);
      // The removed end is the longest that some token continues.
      const continued = (from: number) => {
        const end = bytesOf(ids.slice(from));
        return all.some(
          (id) => tokenizer.bytes(id).length > end.length && end.equals(tokenizer.bytes(id).subarray(0, end.length)),
        );
      };
      const first = ids.findIndex((_, from) => from > 0 && continued(from));
      expect(kept.length).toBe(first < 0 ? ids.length : first);
    },
  );

  test('keeps its first token, and special tokens', () => {
    const [line = 0] = tokenizer.encode('\n');
    expect(healPrompt([line], tokenizer, isExtended)).toBeUndefined();
    expect(healPrompt([0], tokenizer, isExtended)).toBeUndefined();
    expect(healPrompt([line, 0], tokenizer, isExtended)).toBeUndefined();
    expect(healPrompt([line, line], tokenizer, () => true)).toEqual({ prompt: [line], healed: Buffer.from('\n') });
  });
});

describe('the constraint on the first tokens', () => {
  const prefix = Buffer.from(' {\n');
  const fits = (id: number) => {
    const bytes = Buffer.from(tokenizer.bytes(id));
    const length = Math.min(bytes.length, prefix.length);
    return length > 0 && bytes.subarray(0, length).equals(prefix.subarray(0, length));
  };

  test('allows the tokens that are a beginning of the bytes, or begin with them, and then all tokens', () => {
    const state = grammars.startAfter(prefix, undefined);
    expect(allows(state.mask)).toEqual(all.filter(fits));
    const [space = 0] = tokenizer.encode(' ');
    expect(state.after(space)?.isOpen).toBeFalsy();
    expect(state.after(0)).toBeUndefined();
    const [whole = 0] = tokenizer.encode('{\n');
    const open = tokenizer
      .encode('{\n')
      .reduce((at: typeof state | undefined, id) => at?.after(id), state.after(space));
    expect(whole).toBeGreaterThan(0);
    expect(open?.isOpen).toBe(true);
    expect(allows(open?.mask)).toEqual(all);
    expect(open?.after(0)?.isOpen).toBe(true);
  });

  test('is followed by the constraint of the answer', () => {
    const state = grammars.startAfter(prefix, { grammar: jsonObject, key: 'json' });
    const accepts = (text: string) =>
      [...tokenizer.encode(text), 0].reduce((at: typeof state | undefined, id) => at?.after(id), state) !== undefined;
    expect([' {\n{"a":1}', ' {\n{}', ' {\n', '{}', ' {\n[]'].map(accepts)).toEqual([true, true, false, false, false]);
  });

  test('masks no bit beyond a vocabulary that is no multiple of 8', () => {
    const odd = new GrammarCache(tokenizer, { vocabulary: 2045, endOfText: 0 });
    const [line = 0] = tokenizer.encode('\n');
    expect(odd.startAfter(Buffer.from('\n'), undefined).after(line)?.mask.at(-1)).toBe(0b11111);
  });
});

describe('token_healing', () => {
  let server: TestServer;
  beforeAll(async () => {
    server = await startServer();
  });
  afterAll(() => server.close());
  beforeEach(() => {
    server.generator.requests.length = 0;
    server.generator.script = () => ({ steps: [[indented], ...tokenByToken('name: string;\n}')] });
  });

  const prompt = 'export interface User {\n';
  const ids = [0, ...tokenizer.encode(prompt)];
  const parts = healPrompt(ids, tokenizer, isExtended);
  const end = Buffer.from(parts?.healed ?? []).toString();
  // A token of a line feed and the indentation after it.
  const indented = all.find((id) => Buffer.from(tokenizer.bytes(id)).toString() === '\n    ') ?? 0;
  const complete = async (fields: object) => (await server.complete({ prompt, max_tokens: 30, ...fields })).json();
  const lastRequest = () => server.generator.requests.at(-1);

  test('is off by default', async () => {
    expect(end).toBe('\n');
    await complete({});
    expect(lastRequest()?.prompt).toEqual(ids);
    expect(lastRequest()).not.toHaveProperty('grammar');
    await complete({ token_healing: false });
    expect(lastRequest()?.prompt).toEqual(ids);
  });

  test('removes the end of the prompt, which is not repeated in the answer', async () => {
    const { choices, usage } = await complete({ token_healing: true });
    expect(choices[0].text).toBe('    name: string;\n}');
    expect(lastRequest()?.prompt).toEqual(parts?.prompt);
    expect(usage.prompt_tokens).toBe(ids.length - 1);
    expect(usage.completion_tokens).toBe(1 + tokenizer.encode('name: string;\n}').length);
    expect(lastRequest()?.grammar?.after(indented)?.isOpen).toBe(true);
  });

  test('streams the same text', async () => {
    const response = await server.complete({ prompt, max_tokens: 30, token_healing: true, stream: true });
    const chunks = (await events(response)).slice(0, -1).map((data) => JSON.parse(data));
    expect(chunks.map(({ choices }) => choices[0].text).join('')).toBe('    name: string;\n}');
  });

  test('looks for stop strings only after the prompt', async () => {
    const { choices } = await complete({ token_healing: true, stop: ['\n'] });
    expect(choices[0].text).toBe('    name: string;');
  });

  test('lists whole tokens in logprobs, with offsets in the text', async () => {
    const { choices } = await complete({ token_healing: true, logprobs: 0 });
    const { tokens, text_offset: offsets } = choices[0].logprobs;
    expect([tokens[0], ...offsets.slice(0, 2)]).toEqual(['\n    ', 0, 4]);
    expect(tokens.join('')).toBe(`\n${choices[0].text}`);
    const echoed = (await complete({ token_healing: true, logprobs: 0, echo: true })).choices[0];
    expect(echoed.text).toBe(`${prompt}    name: string;\n}`);
    expect(echoed.logprobs.tokens.join('')).toBe(echoed.text);
    const at = echoed.logprobs.tokens.indexOf('\n    ');
    expect(echoed.logprobs.text_offset.slice(at, at + 2)).toEqual([prompt.length - 1, prompt.length + 4]);
    const special = (await complete({ token_healing: true, special_tokens: true, echo: true })).choices[0];
    expect(special.text).toBe(echoed.text);
  });

  test('traces steps with the text of the answer', async () => {
    const { choices } = await complete({ token_healing: true, ptp: { trace: true } });
    const spelled = choices[0].ptp.flatMap((step: { tokens: { text: string }[] }) => step.tokens);
    expect(spelled.map(({ text }: { text: string }) => text).join('')).toBe(choices[0].text);
  });

  test('works with a constraint, several prompts and several choices', async () => {
    const lists = await complete({ prompt: [prompt, 'x'], n: 2, token_healing: true });
    expect(lists.choices).toHaveLength(4);
    const { requests } = server.generator;
    expect(requests.slice(0, 2).map((request) => request.prompt)).toEqual([parts?.prompt, parts?.prompt]);
    await complete({ token_healing: true, response_format: { type: 'json_object' } });
    expect(server.isAllowed('\n{"a":1}')).toBe(true);
    expect(server.isAllowed('{"a":1}')).toBe(false);
  });

  test('leaves token ids and a prompt without an answer unchanged', async () => {
    await complete({ prompt: ids, token_healing: true });
    expect(lastRequest()?.prompt).toEqual(ids);
    const echoed = await complete({ token_healing: true, echo: true, max_tokens: 0 });
    expect([echoed.choices[0].text, lastRequest()?.prompt]).toEqual([prompt, ids]);
  });

  test('returns 400 in chat and responses, and unless it is a boolean', async () => {
    const messages = [{ role: 'user', content: 'hi' }];
    const responses = [
      await server.chat({ messages, token_healing: true }),
      await server.post('/v1/responses', { input: 'a', token_healing: true }),
      await server.complete({ prompt, token_healing: 1 }),
    ];
    for (const response of responses) {
      expect([response.status, (await response.json()).error.param]).toEqual([400, 'token_healing']);
    }
    expect((await server.chat({ messages, token_healing: false })).status).toBe(200);
  });
});

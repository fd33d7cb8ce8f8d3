import { parseExactly } from '@ptp/protocol/long-number';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ChatTemplate } from '../../src/text/chat-template.ts';
import { startServer, type TestServer, tokenByToken, tokenizer } from '../testing/test-server.ts';

const TEXTS = [
  '{"reasoning":1,"10":2,"2":3}',
  '{"b":{"1":[{"7":0,"x":{"0":1,"-":2},"00":3}]},"a":1}',
  '{"__proto__":1,"a":{"__proto__":{"z":1,"9":2}}}',
  '{"3":"\\"2\\":1","k":"\\u0031","1":9007199254740993}',
  '{"\\u0031":1,"a\\"":2,"":3,"0":4}',
  '{"4294967294":1,"4294967295":2,"5":3}',
];
const plain = (text: string) => text.replaceAll('\\u0031', '1');

describe('parsing', () => {
  test.each(TEXTS)('keeps the order of %s', (text) => {
    expect(JSON.stringify(parseExactly(text))).toBe(plain(text));
  });

  test('gives plain values: the last of equal names wins', () => {
    const value = parseExactly('{"b":1,"1":2,"1":3,"b":4}') as Record<string, unknown>;
    expect(value).toEqual({ b: 4, 1: 3 });
    expect(Object.entries(value)).toEqual([
      ['b', 4],
      ['1', 3],
    ]);
    expect([value['1'], '1' in value, Object.hasOwn(value, 'c'), { ...value }]).toEqual([
      3,
      true,
      false,
      { b: 4, 1: 3 },
    ]);
  });

  test.each(['{"1":}', '{"1":1', '{"a":"\n","1":2}', "{'1':1}"])('rejects %s', (text) => {
    expect(() => parseExactly(text)).toThrow(SyntaxError);
  });
});

describe('the order of properties', () => {
  // Writes tools and calls itself.
  const template = new ChatTemplate(`{% for m in messages %}{{ m.content }}{% if m.tool_calls %}<tool_call>
    {{ m.tool_calls | tojson }}{% endif %}{% endfor %}{% for t in tools or [] %}{{ t | tojson }}{% endfor %}`);
  let server: TestServer;
  let templated: TestServer;
  beforeAll(async () => {
    server = await startServer();
    templated = await startServer({ template });
    for (const each of [server, templated]) each.generator.script = () => ({ steps: tokenByToken('ok') });
  });
  afterAll(() => Promise.all([server.close(), templated.close()]));

  const names = ['reasoning', '10', '__proto__', '2'];
  const members = (value: string) => names.map((name) => `"${name}":${value}`).join();
  const schema = `{"type":"object","properties":{${members('{"type":"null"}')}},"required":${JSON.stringify(names)},"additionalProperties":false}`;
  const ordered = `{${members('null')}}`;
  const other = '{"2":null,"10":null,"reasoning":null,"__proto__":null}';

  const tool = `{"name":"f","parameters":${schema}}`;
  const messages = '"messages":[{"role":"user","content":"hi"}]';
  test.each([
    [
      '/v1/completions',
      `"prompt":"","response_format":{"type":"json_schema","json_schema":{"name":"x","schema":${schema}}}`,
    ],
    ['/v1/completions', `"prompt":"","response_format":{"type":"json_object","schema":${schema}}`],
    ['/v1/completions', `"prompt":"","structured_outputs":{"json":${schema}}`],
    ['/v1/completions', `"prompt":"","structured_outputs":{"json":${JSON.stringify(schema)}}`],
    ['/v1/completions', `"prompt":"","guided_json":${schema}`],
    ['/v1/chat/completions', `${messages},"response_format":{"type":"json_schema","json_schema":{"schema":${schema}}}`],
    ['/v1/responses', `"input":"hi","text":{"format":{"type":"json_schema","name":"x","schema":${schema}}}`],
  ])('is that of the schema: %s %s', async (path, body) => {
    expect((await server.post(path, `{${body}}`)).status).toBe(200);
    expect([ordered, other, '{}'].map(server.isAllowed)).toEqual([true, false, false]);
  });

  test.each([
    ['/v1/chat/completions', `${messages},"tool_choice":"required","tools":[{"type":"function","function":${tool}}]`],
    ['/v1/responses', `"input":"hi","tool_choice":"required","tools":[{"type":"function",${tool.slice(1)}]`],
  ])('is that of a tool, in its calls and in the prompt: %s', async (path, body) => {
    const call = (given: string) => `<tool_call>\n{"name": "f", "arguments": ${given}}\n</tool_call>`;
    for (const each of [server, templated]) {
      expect((await each.post(path, `{${body}}`)).status).toBe(200);
      expect([call(ordered), call(other)].map(each.isAllowed)).toEqual([true, false]);
      const prompt = tokenizer.decode(each.generator.requests.at(-1)?.prompt ?? []).replaceAll(' ', '');
      expect(prompt).toContain(members('{"type":"null"}'));
    }
  });

  test('is that of earlier calls in the prompt', async () => {
    const given = `{${members('{"1":[],"0":2}')}}`;
    const call = `{"id":"1","type":"function","function":{"name":"f","arguments":${JSON.stringify(given)}}}`;
    const body = `{"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":null,"tool_calls":[${call}]}]}`;
    for (const each of [server, templated]) {
      expect((await each.post('/v1/chat/completions', body)).status).toBe(200);
      const prompt = tokenizer.decode(each.generator.requests.at(-1)?.prompt ?? []).replaceAll(' ', '');
      expect(prompt).toContain(given);
    }
  });

  test('does not change fields that are keyed by numbers', async () => {
    expect((await server.complete({ prompt: 'a', logit_bias: { 20: 1, 3: 2 } })).status).toBe(200);
    expect(server.generator.requests.at(-1)?.adjustments?.logitBias).toEqual(
      new Map([
        [20, 1],
        [3, 2],
      ]),
    );
  });
});

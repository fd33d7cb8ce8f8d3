import OpenAI from 'openai';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { GrammarState } from '../../src/decode/types.ts';
import { events, startServer, type TestServer, tokenByToken, tokenizer } from '../testing/test-server.ts';

let server: TestServer;
let client: OpenAI;
beforeAll(async () => {
  server = await startServer();
  client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'any', maxRetries: 0 });
});
afterAll(() => server.close());
beforeEach(() => {
  server.generator.requests.length = 0;
});

const parameters = {
  type: 'object',
  properties: { city: { type: 'string' }, days: { type: 'integer', minimum: 1, maximum: 9 } },
  required: ['city'],
  additionalProperties: false,
};
const weather = { type: 'function', function: { name: 'weather', description: 'Of a city', parameters } } as const;
const now = { type: 'function', function: { name: 'now' } } as const;
const messages = [{ role: 'user', content: 'How is it?' }] as const;
const call = (name: string, given: string) => `<tool_call>\n{"name": "${name}", "arguments": ${given}}\n</tool_call>`;
const script = (text: string) => {
  server.generator.script = () => ({ steps: tokenByToken(text) });
};
const send = (more: object) =>
  client.chat.completions.create({ model: 'default', messages: [...messages], tools: [weather, now], ...more });

/** Returns true if the grammar of the last request accepts the text. */
function isAllowed(text: string): boolean {
  let place: GrammarState | undefined = server.generator.requests.at(-1)?.grammar;
  expect(place).toBeDefined();
  for (const id of tokenizer.encode(text)) place = place?.after(id);
  return place?.after(server.generator.model.endOfText) !== undefined;
}

describe('calls', () => {
  const one = call('weather', '{"city": "S\u00e3o \\"P\\" {}]"}');

  test('are separated from the text of the answer', async () => {
    script(`Let me see <tool now.\n${one}\n${call('now', '{}')}`);
    const { choices } = await send({});
    const [{ message, finish_reason }] = choices as [OpenAI.ChatCompletion.Choice];
    expect(finish_reason).toBe('tool_calls');
    expect(message.content).toBe('Let me see <tool now.');
    expect(message.tool_calls).toMatchObject([
      { id: expect.stringMatching(/^call_/), type: 'function', function: { name: 'weather' } },
      { type: 'function', function: { name: 'now', arguments: '{}' } },
    ]);
    const [first] = message.tool_calls as [OpenAI.ChatCompletionMessageFunctionToolCall];
    expect(JSON.parse(first.function.arguments)).toEqual({ city: 'S\u00e3o "P" {}]' });
  });

  test('are streamed', async () => {
    script(`Now. ${one}\n${call('now', '{}')}`);
    const stream = client.chat.completions.stream({ model: 'default', messages: [...messages], tools: [weather, now] });
    const pieces: string[] = [];
    stream.on('tool_calls.function.arguments.delta', ({ arguments_delta }) => pieces.push(arguments_delta));
    const { choices } = await stream.finalChatCompletion();
    expect(choices[0]?.finish_reason).toBe('tool_calls');
    expect(choices[0]?.message.content).toBe('Now.');
    const calls = choices[0]?.message.tool_calls as OpenAI.ChatCompletionMessageFunctionToolCall[];
    expect(calls.map(({ function: { name } }) => name)).toEqual(['weather', 'now']);
    expect(JSON.parse(calls[0]?.function.arguments ?? '')).toEqual({ city: 'S\u00e3o "P" {}]' });
    expect(pieces.length).toBeGreaterThan(5);
  });

  test('without text leave the content null', async () => {
    script(one);
    const { choices } = await send({ tool_choice: 'required' });
    expect(choices[0]?.message.content).toBeNull();
  });

  test('are optional: text that begins like one stays text', async () => {
    script('a < b, <tool_call is no tag <tool_');
    const { choices } = await send({});
    expect(choices[0]).toMatchObject({
      finish_reason: 'stop',
      message: { content: 'a < b, <tool_call is no tag <tool_' },
    });
    expect(choices[0]?.message.tool_calls).toBeUndefined();
    const stream = client.chat.completions.stream({ model: 'default', messages: [...messages], tools: [weather] });
    expect(await stream.finalContent()).toBe('a < b, <tool_call is no tag <tool_');
  });

  test('have the finish reason length if cut off by the limit', async () => {
    script(one);
    const { choices } = await send({ max_tokens: 20 });
    expect(choices[0]?.finish_reason).toBe('length');
  });
});

describe('the grammar', () => {
  beforeEach(() => script('ok'));

  test('for auto accepts text and valid calls', async () => {
    await send({});
    for (const text of [
      '',
      'Fine <tool_call',
      call('now', '{}'),
      `x\n${call('weather', '{"city":"Rome","days":3}')}`,
    ]) {
      expect([text, isAllowed(text)]).toEqual([text, true]);
    }
    const wrong = [
      call('then', '{}'),
      call('now', '{"a":1}'),
      call('weather', '{"days":3}'),
      call('weather', '{"city":"Rome","days":10}'),
      `${call('now', '{}')} and more`,
      '<tool_call>',
    ];
    for (const text of wrong) expect([text, isAllowed(text)]).toEqual([text, false]);
  });

  test('for required accepts calls only, for a function one call of it', async () => {
    const two = `${call('now', '{}')}\n${call('now', '{}')}`;
    await send({ tool_choice: 'required' });
    expect([isAllowed('Fine'), isAllowed(call('now', '{}')), isAllowed(two)]).toEqual([false, true, true]);
    await send({ tool_choice: 'required', parallel_tool_calls: false });
    expect([isAllowed(call('now', '{}')), isAllowed(two)]).toEqual([true, false]);
    await send({ tool_choice: { type: 'function', function: { name: 'now' } } });
    expect([isAllowed(call('now', '{}')), isAllowed(two)]).toEqual([true, false]);
    expect(isAllowed(call('weather', '{"city":"Rome"}'))).toBe(false);
  });

  test('is absent for none', async () => {
    await send({ tool_choice: 'none' });
    expect(server.generator.requests.at(-1)).not.toHaveProperty('grammar');
  });

  test('follows a response format', async () => {
    const schema = { name: 'x', schema: parameters, strict: true };
    await send({ tools: undefined, response_format: { type: 'json_schema', json_schema: schema } });
    expect([isAllowed('{"city":"Rome"}'), isAllowed('{"city":1}')]).toEqual([true, false]);
    await server.complete({ prompt: 'a', response_format: { type: 'json_object' } });
    expect([isAllowed('{"any":[1]}'), isAllowed('[1]')]).toEqual([true, false]);
    await server.complete({ prompt: 'a', structured_outputs: { choice: ['yes', 'no'] } });
    expect([isAllowed('yes'), isAllowed('no'), isAllowed('yesno')]).toEqual([true, true, false]);
    await server.complete({ prompt: 'a', structured_outputs: { regex: 'a+b|c' } });
    expect([isAllowed('aab'), isAllowed('c'), isAllowed('xcx')]).toEqual([true, true, false]);
    await server.complete({ prompt: 'a', structured_outputs: { json: JSON.stringify(parameters) } });
    expect(isAllowed('{"city":"Rome"}')).toBe(true);
  });
});

describe('a schema that the grammar cannot follow', () => {
  const properties = { v: { $dynamicRef: '#a' } };
  const rich = (parameters: object, strict?: boolean) =>
    ({ type: 'function', function: { name: 'rich', parameters, ...(strict !== undefined && { strict }) } }) as const;
  const warning = (problem: string) =>
    `The arguments of the tool \`rich\` may be any JSON object, because its schema cannot be enforced: ${problem}.`;
  const dynamic = warning('`tools[1].function.parameters.properties.v.$dynamicRef` is not supported');

  test.each<[string, object, string]>([
    ['in a property', { type: 'object', properties }, dynamic],
    ['without `type`', { properties }, dynamic],
    ['without properties', { type: 'object', $dynamicRef: '#a' }, '`tools[1].function.parameters.$dynamicRef`'],
    [
      'in other keywords',
      { type: 'object', patternProperties: { '^a': { $dynamicRef: '#a' } } },
      '`tools[1].function.parameters.patternProperties',
    ],
  ])('allows any object, with a warning: %s', async (_, parameters, expected) => {
    script(call('weather', '{"city":"Oslo"}'));
    const answer = await send({ tools: [weather, rich(parameters)] });
    expect(answer).toMatchObject({ warning: expect.stringContaining(expected) });
    const allowed = ['{"any":{"b":[1]}}', '{}', '[1]', '"a"', '{"a":'].map((given) => isAllowed(call('rich', given)));
    expect(allowed).toEqual([true, true, false, false, false]);
    // The schemas of the other tools still apply.
    expect(isAllowed(call('weather', '{"days":3}'))).toBe(false);
  });

  test('is an error if the tool is strict', async () => {
    const response = await server.chat({ messages, tools: [weather, rich({ type: 'object', properties }, true)] });
    expect([response.status, (await response.json()).error.param]).toEqual([
      400,
      'tools[1].function.parameters.properties.v.$dynamicRef',
    ]);
  });

  test('has its warning in the first chunk of a stream, and only if the answer may call the tool', async () => {
    script('ok');
    const tools = [weather, rich({ type: 'object', properties }, false)];
    const response = await server.chat({ messages, tools, stream: true });
    const chunks = (await events(response)).slice(0, -1).map((data) => JSON.parse(data));
    expect(chunks[0]).toMatchObject({ warning: dynamic });
    expect(chunks.filter((chunk) => 'warning' in chunk)).toHaveLength(1);
    const other = { type: 'function', function: { name: 'weather' } };
    expect(await send({ tools, tool_choice: other })).not.toHaveProperty('warning');
    expect(await send({ tools, tool_choice: 'none' })).not.toHaveProperty('warning');
  });

  test('has its warning in responses, without and with `strict`', async () => {
    script('ok');
    const tool = { type: 'function', name: 'rich', parameters: { type: 'object', properties } };
    const request = (more: object) => server.post('/v1/responses', { input: 'hi', tools: [{ ...tool, ...more }] });
    const [loose, strict] = [await request({}), await request({ strict: true })];
    expect((await loose.json()).warning).toContain('`tools[0].parameters.properties.v.$dynamicRef` is not supported');
    expect(strict.status).toBe(400);
  });

  test('no arguments are {}, and an object without properties is any object', async () => {
    script('ok');
    await send({ tools: [now, rich({ type: 'object' })] });
    expect([isAllowed(call('now', '{"a":1}')), isAllowed(call('rich', '{"a":1}'))]).toEqual([false, true]);
    await send({ tools: [rich({ type: 'object', properties: {} })] });
    expect([isAllowed(call('rich', '{"a":1}')), isAllowed(call('rich', '{}'))]).toEqual([false, true]);
  });
});

describe('together with a response format', () => {
  const format = { type: 'json_schema', json_schema: { name: 'x', schema: parameters } };
  const json = '{"city":"Oslo <tool_call>"}';
  const one = call('now', '{}');

  test('the answer is either calls or text that satisfies the format', async () => {
    script(json);
    const { choices } = await send({ response_format: format });
    expect(choices[0]).toMatchObject({ finish_reason: 'stop', message: { content: json } });
    expect(choices[0]?.message.tool_calls).toBeUndefined();
    const texts = [json, one, `${one}\n${one}`, 'Fine', `${json}\n${one}`, '{"city":1}'];
    expect(texts.map(isAllowed)).toEqual([true, true, true, false, false, false]);
    script(one);
    const called = await send({ response_format: format });
    expect(called.choices[0]).toMatchObject({ finish_reason: 'tool_calls', message: { content: null } });
    expect(called.choices[0]?.message.tool_calls).toHaveLength(1);
  });

  test('forced calls leave no text, and `none` leaves no calls', async () => {
    script(one);
    await send({ response_format: format, tool_choice: 'required' });
    expect([isAllowed(json), isAllowed(one)]).toEqual([false, true]);
    script(json);
    await send({ response_format: format, tool_choice: 'none' });
    expect([isAllowed(json), isAllowed(one)]).toEqual([true, false]);
  });

  test.each([json, one])('streams in chat and in responses: %s', async (text) => {
    script(text);
    const chat = client.chat.completions.stream({
      model: 'default',
      messages: [...messages],
      tools: [now],
      response_format: { type: 'json_object' },
    });
    const { message } = (await chat.finalChatCompletion()).choices[0] as { message: OpenAI.ChatCompletionMessage };
    expect([message.content, message.tool_calls?.length ?? 0]).toEqual(text === json ? [json, 0] : ['', 1]);
    const response = await client.responses
      .stream({
        model: 'default',
        input: 'hi',
        tools: [{ type: 'function', name: 'now', parameters: null, strict: false }],
        text: { format: { type: 'json_object' } },
        include: ['message.output_text.logprobs'],
      })
      .finalResponse();
    expect(response.output.map(({ type }) => type)).toEqual([text === json ? 'message' : 'function_call']);
    expect(response.output_text).toBe(text === json ? json : '');
  });
});

describe('the prompt', () => {
  const conversation = [
    ...messages,
    { role: 'assistant', tool_calls: [{ id: 'c1', type: 'function', function: { name: 'now', arguments: '{}' } }] },
    { role: 'tool', tool_call_id: 'c1', content: 'noon' },
  ];

  test('describes tools as text if the template does not support them', async () => {
    script('ok');
    await server.chat({ messages: conversation, tools: [now] });
    const prompt = server.generator.requests.at(-1)?.prompt ?? [];
    const text = Buffer.concat(prompt.map((id) => tokenizer.bytes(id))).toString();
    expect(text).toContain('<tools>');
    expect(text).toContain('"name":"now"');
    expect(text).toContain('<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>');
    expect(text).toContain('noon');
  });
});

describe('responses', () => {
  const flat = { type: 'function', name: 'weather', parameters, strict: true } as const;
  const input = [
    { role: 'user', content: 'hi' },
    { type: 'function_call', call_id: 'c0', name: 'weather', arguments: '{"city":"Rome"}' },
    { type: 'function_call_output', call_id: 'c0', output: 'sunny' },
  ] as const;

  test('contain calls as items', async () => {
    script(`Wait.\n${call('weather', '{"city":"Oslo"}')}`);
    const response = await client.responses.create({ model: 'default', input: [...input], tools: [flat] });
    expect(response.status).toBe('completed');
    expect(response.output_text).toBe('Wait.');
    expect(response.output[1]).toMatchObject({
      type: 'function_call',
      call_id: expect.stringMatching(/^call_/),
      name: 'weather',
      arguments: '{"city":"Oslo"}',
      status: 'completed',
    });
    expect(response.tools).toEqual([flat]);
  });

  test('stream them', async () => {
    script(call('weather', '{"city":"Oslo"}'));
    const stream = client.responses.stream({ model: 'default', input: [...input], tools: [flat] });
    const types = new Set<string>();
    stream.on('event', ({ type }) => void types.add(type));
    const response = await stream.finalResponse();
    expect(response.output).toMatchObject([{ type: 'function_call', name: 'weather', arguments: '{"city":"Oslo"}' }]);
    for (const type of ['output_item.added', 'function_call_arguments.delta', 'function_call_arguments.done']) {
      expect(types).toContain(`response.${type}`);
    }
    expect(types).not.toContain('response.output_text.delta');
  });

  test('follow a format', async () => {
    script('{"city":"Oslo"}');
    const format = { type: 'json_schema', name: 'place', schema: parameters, strict: true } as const;
    const response = await client.responses.create({ model: 'default', input: 'hi', text: { format } });
    expect(response.text?.format).toMatchObject(format);
    expect([isAllowed('{"city":"Oslo"}'), isAllowed('{}')]).toEqual([true, false]);
  });
});

describe('rejects', () => {
  test.each([
    [{ tools: [{ type: 'web_search' }] }, 'tools[0].type', '`tools[0].type` must be "function", got "web_search"'],
    [{ tools: [weather, weather] }, 'tools', '`tools` must be functions of different names, got "weather"'],
    [
      { tools: undefined, tool_choice: 'required' },
      'tool_choice',
      '`tool_choice` must be none or auto without `tools`, got "required"',
    ],
    [
      { tool_choice: { type: 'function', function: { name: 'x' } } },
      'tool_choice',
      '`tool_choice` must be the name of a tool of the request, got "x"',
    ],
    [{ tools: [{ type: 'function', function: { name: 'a b' } }] }, 'tools[0].function.name', undefined],
    [
      {
        tools: [
          {
            type: 'function',
            function: {
              name: 'f',
              strict: true,
              parameters: { type: 'object', properties: { a: { $dynamicRef: '#a' } } },
            },
          },
        ],
      },
      'tools[0].function.parameters.properties.a.$dynamicRef',
      '`tools[0].function.parameters.properties.a.$dynamicRef` is not supported',
    ],
    [
      { tools: [{ type: 'function', function: { name: 'f', parameters: { type: 'array' } } }] },
      'tools[0].function.parameters.type',
      undefined,
    ],
    [
      { tools: undefined, response_format: { type: 'xml' } },
      'response_format.type',
      '`response_format.type` must be text, json_object or json_schema, got "xml"',
    ],
    [{ tools: undefined, response_format: { type: 'json_object' }, ignore_eos: true }, 'ignore_eos', undefined],
    [{ tools: undefined, response_format: { type: 'json_object' }, min_tokens: 3 }, 'min_tokens', undefined],
    [
      { tool_choice: { type: 'function', function: { name: 'weather' } }, min_tokens: 3 },
      'min_tokens',
      '`min_tokens` must be absent with constrained output (a response format, `structured_outputs` or `tools`), got 3',
    ],
    [{ min_tokens: 3 }, 'min_tokens', undefined],
    [{ tool_choice: 'required', ignore_eos: true }, 'ignore_eos', undefined],
    [{ tools: undefined, structured_outputs: {} }, 'structured_outputs', undefined],
    [{ tools: undefined, structured_outputs: { regex: '(' } }, 'structured_outputs.regex', undefined],
    [{ tools: undefined, structured_outputs: { grammar: 'x' } }, 'structured_outputs.grammar', undefined],
  ])('%j', async (more, param, message) => {
    const response = await server.chat({ messages, tools: [weather], ...more });
    expect(response.status).toBe(400);
    expect((await response.json()).error).toMatchObject({ param, ...(message && { message }) });
  });
});

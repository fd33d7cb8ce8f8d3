import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ChatTemplate } from '../../src/text/chat-template.ts';
import { events, startServer, type TestServer, tokenByToken, tokenizer } from '../testing/test-server.ts';

let server: TestServer;
beforeAll(async () => {
  server = await startServer();
});
afterAll(() => server.close());

const parameters = { type: 'object', properties: { a: { type: 'string', maxLength: 3 } }, required: ['a'] };
const tools = [{ type: 'function', function: { name: 'get', parameters } }];
const messages = [{ role: 'user', content: 'hi' }];
const CALL = '<tool_call>\n{"name": "get", "arguments": {"a": "x"}}\n</tool_call>';

/** Lets the model write a text, one or several tokens at a time. */
function writes(text: string, finish: 'stop' | 'length', tokensPerStep = 1): void {
  const ids = tokenizer.encode(text);
  const steps = ids.flatMap((_, i) => (i % tokensPerStep === 0 ? [ids.slice(i, i + tokensPerStep)] : []));
  server.generator.script = () => ({ steps, finish });
}

async function chat(fields: object) {
  const response = await server.chat({ messages, max_tokens: 100, ...fields });
  const body = await response.json();
  return response.ok ? body.choices[0] : body.error;
}

describe('a call that the end of the text cuts off', () => {
  test('by a stop string finishes with stop', async () => {
    writes(CALL, 'stop');
    const { finish_reason, message } = await chat({ tools, tool_choice: 'required', stop: ['}'] });
    expect(finish_reason).toBe('stop');
    expect(message.tool_calls[0].function.arguments).toBe('{"a": "x"');
    expect((await chat({ tools, tool_choice: 'required' })).finish_reason).toBe('tool_calls');
  });

  test.each(['required', 'auto'])('within its opening tag is no content (tool_choice %s)', async (tool_choice) => {
    writes('<tool', 'length');
    const { finish_reason, message } = await chat({ tools, tool_choice });
    expect([finish_reason, message.content]).toEqual(['length', '']);
  });

  test('is content if the model ends its text there', async () => {
    writes('a <tool', 'stop');
    expect((await chat({ tools })).message.content).toBe('a <tool');
  });

  test.each([
    ['{"a":', '{"a":'],
    ['', '{}'],
  ])('can be replayed: arguments %j', async (given, shown) => {
    writes('ok', 'stop');
    const call = { id: 'c1', type: 'function', function: { name: 'f', arguments: given } };
    const history = [
      { role: 'user', content: 'A' },
      { role: 'assistant', content: null, tool_calls: [call] },
      { role: 'tool', tool_call_id: 'c1', content: 'cut' },
      { role: 'user', content: 'go on' },
    ];
    expect((await chat({ messages: history })).finish_reason).toBe('stop');
    const prompt = tokenizer.decode(server.generator.requests.at(-1)?.prompt ?? []);
    expect(prompt).toContain(`"arguments": ${shown}}`);
  });
});

test('the stream of a call has no empty chunks', async () => {
  writes(CALL, 'stop');
  const data = await events(await server.chat({ messages, tools, max_tokens: 100, stream: true }));
  const deltas = data.slice(0, -1).map((event) => JSON.parse(event).choices[0]);
  const empty = deltas.filter(({ delta, finish_reason }) => Object.keys(delta).length === 0 && finish_reason === null);
  expect(empty).toEqual([]);
  expect(
    deltas
      .flatMap(({ delta }) => delta.tool_calls ?? [])
      .map((piece) => piece.function.arguments)
      .join(''),
  ).toBe('{"a": "x"}');
});

describe('log-probabilities of a response with calls', () => {
  const include = ['message.output_text.logprobs'];
  const flat = [{ type: 'function', name: 'get', parameters }];
  const respond = async (fields: object) => {
    const body = { model: 'default', input: 'hi', include, tools: flat, ...fields };
    const response = await server.post('/v1/responses', JSON.stringify(body));
    return (await response.json()).output;
  };

  test('a forced call is the only item', async () => {
    writes(CALL, 'stop');
    expect(await respond({ tool_choice: 'required' })).toMatchObject([{ type: 'function_call', name: 'get' }]);
  });

  test.each([1, 3, 100])('belong to the content, however many tokens a step has (%i)', async (count) => {
    writes(`I look it up. ${CALL}`, 'stop', count);
    const [item, call, ...rest] = await respond({});
    expect([call.type, rest]).toEqual(['function_call', []]);
    const [part] = item.content;
    expect(part.text).toBe('I look it up.');
    expect(
      part.logprobs
        .map(({ token }: { token: string }) => token)
        .join('')
        .trimEnd(),
    ).toBe('I look it up.');
    writes('No call', 'stop', count);
    const [{ content }] = await respond({});
    expect(content[0].logprobs).toHaveLength(tokenizer.encode('No call').length);
  });
});

describe('the input of a response', () => {
  const template = new ChatTemplate(
    "{%- for m in messages %}[{{ m.role }}]{{ m.content }}{%- for c in m.tool_calls or [] %}<tool_call>{{ c.function.name }}{% endfor %}\n{% endfor %}{{ '' if tools else '' }}",
  );

  test('makes one turn of a text and its calls, reads parts, and ignores reasoning', async () => {
    const own = await startServer({ template });
    try {
      own.generator.script = () => ({ steps: tokenByToken('ok') });
      const call = (call_id: string) => ({ type: 'function_call', call_id, name: 'f', arguments: '{"a":1}' });
      const output = (call_id: string) => ({
        type: 'function_call_output',
        call_id,
        output: [{ type: 'input_text', text: call_id }],
      });
      const input = [
        { role: 'user', content: 'A' },
        { type: 'reasoning', id: 'rs_1', summary: [], encrypted_content: 'x' },
        { type: 'message', role: 'assistant', content: [{ type: 'output_text', text: 'ok' }] },
        call('1'),
        call('2'),
        output('1'),
        output('2'),
      ];
      const body = { model: 'default', input, include: ['reasoning.encrypted_content'], truncation: 'auto' };
      const response = await own.post('/v1/responses', JSON.stringify(body));
      expect(response.status).toBe(200);
      const prompt = tokenizer.decode(own.generator.requests.at(-1)?.prompt ?? []);
      expect(prompt).toContain('[user]A[assistant]ok<tool_call>f<tool_call>f[tool]1[tool]2');
    } finally {
      await own.close();
    }
  });
});

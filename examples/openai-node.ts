// The official OpenAI client for Node: streaming, JSON that matches a schema, and a tool call.
//   node examples/openai-node.ts [http://127.0.0.1:8080]
import OpenAI from 'openai';

const client = new OpenAI({ baseURL: `${process.argv[2] ?? 'http://127.0.0.1:8080'}/v1`, apiKey: 'any' });
const model = 'default';

// Streamed text
const stream = await client.completions.create({
  model,
  prompt: 'export interface User {',
  max_tokens: 60,
  seed: 1,
  stream: true,
});
for await (const chunk of stream) process.stdout.write(chunk.choices[0]?.text ?? '');
console.log();

// JSON that matches a schema
const schema = {
  type: 'object',
  properties: { name: { type: 'string', maxLength: 20 }, private: { type: 'boolean' } },
  required: ['name', 'private'],
  additionalProperties: false,
};
const messages = [{ role: 'user', content: 'A package.' }] as const;
const structured = await client.chat.completions.create({
  model,
  messages: [...messages],
  response_format: { type: 'json_schema', json_schema: { name: 'package', schema, strict: true } },
  max_tokens: 100,
  seed: 1,
});
console.log(JSON.parse(structured.choices[0]?.message.content ?? ''));

// A tool call
const called = await client.chat.completions.create({
  model,
  messages: [...messages],
  tools: [{ type: 'function', function: { name: 'publish', parameters: schema } }],
  tool_choice: { type: 'function', function: { name: 'publish' } },
  max_tokens: 100,
  seed: 1,
});
const [call] = called.choices[0]?.message.tool_calls ?? [];
if (call?.type === 'function') console.log(call.function.name, JSON.parse(call.function.arguments));

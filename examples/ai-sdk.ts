// Vercel's AI SDK with its provider for OpenAI-compatible APIs: streaming, and an object that matches a schema.
//   node examples/ai-sdk.ts [http://127.0.0.1:8080]
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { generateText, jsonSchema, Output, streamText } from 'ai';

const ptp = createOpenAICompatible({
  name: 'ptp',
  baseURL: `${process.argv[2] ?? 'http://127.0.0.1:8080'}/v1`,
  supportsStructuredOutputs: true,
});

const { textStream } = streamText({ model: ptp('default'), prompt: 'A queue of tasks.', maxOutputTokens: 60, seed: 1 });
for await (const text of textStream) process.stdout.write(text);
console.log();

const schema = jsonSchema<{ name: string; private: boolean }>({
  type: 'object',
  properties: { name: { type: 'string', maxLength: 20 }, private: { type: 'boolean' } },
  required: ['name', 'private'],
  additionalProperties: false,
});
const { output } = await generateText({
  model: ptp('default'),
  prompt: 'A package.',
  output: Output.object({ schema }),
  maxOutputTokens: 100,
  seed: 1,
});
console.log(output);

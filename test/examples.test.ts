import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { APICallError, generateText, jsonSchema, stepCountIs, streamText, tool } from 'ai';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { serveGateway } from './served.ts';

// Runs the examples against a complete server with the shipped models.

const examples = join(import.meta.dirname, '..', 'examples');
const models = join(import.meta.dirname, '..', 'models', 'default');
let server: Awaited<ReturnType<typeof serveGateway>>;
beforeAll(async () => {
  server = await serveGateway(models);
});
afterAll(() => server.close());

const url = () => server.url.replace(/\/$/, '');
async function run(program: string, ...args: string[]): Promise<string[]> {
  const { stdout } = await promisify(execFile)(program, args, { timeout: 60_000 });
  return stdout.trimEnd().split('\n');
}
const node = (file: string, address: string) => run(process.execPath, join(examples, file), address);

describe('examples', () => {
  test('curl.sh', async () => {
    const lines = await run(join(examples, 'curl.sh'), url());
    expect(lines.filter((line) => line.startsWith('data: ')).length).toBeGreaterThan(3);
    expect(lines).toContain('data: [DONE]');
    const answers = lines.filter((line) => line.startsWith('{')).map((line) => JSON.parse(line));
    const [port, echoed, tokens, refused] = answers;
    expect(port.choices[0].text).toMatch(/^[1-9]\d{3}$/);
    expect(echoed.choices[0].logprobs.tokens.join('')).toMatch(/^export class Foo/);
    expect(tokens.tokens).toHaveLength(tokens.count);
    expect(tokens.count).toBeGreaterThan(3);
    expect(refused.error.message).toBe('`temperature` must be in [0, 2], got 3');
  });

  test('the request of README.md', async () => {
    const [, command = ''] = /^(curl [^`]*)/m.exec(readFileSync(join(examples, '../README.md'), 'utf8')) ?? [];
    const lines = await run('bash', '-c', command.replace('http://127.0.0.1:8080', url()));
    expect(lines.filter((line) => line.startsWith('data: ')).length).toBeGreaterThan(3);
    expect(lines).toContain('data: [DONE]');
  });

  test('openai-node.ts', async () => {
    const lines = await node('openai-node.ts', url());
    expect(lines.at(-2)).toMatch(/^\{ name: .*, private: (true|false) \}$/);
    expect(lines.at(-1)).toMatch(/^publish \{ name: .*, private: (true|false) \}$/);
  });

  test('ai-sdk.ts', async () => {
    const lines = await node('ai-sdk.ts', url());
    expect(lines.at(-1)).toMatch(/^\{ name: .*, private: (true|false) \}$/);
    expect(lines.join('').length).toBeGreaterThan(60);
  });

  test('grpc-client.ts', async () => {
    const lines = await node('grpc-client.ts', server.grpcAddress);
    expect(lines[0]).toBe(`${server.id}, 1024 tokens of context`);
    expect(lines.at(-2)).toMatch(/^60 tokens in \d+ steps$/);
    expect(lines.at(-1)).toBe('invalid_argument in temperature: `temperature` must be in [0, 2], got 3');
  });
});

describe("Vercel's AI SDK", () => {
  const model = (name = 'default') =>
    createOpenAICompatible({ name: 'ptp', baseURL: `${url()}/v1`, supportsStructuredOutputs: true })(name);

  test('streams text with usage and a reason', async () => {
    const result = streamText({ model: model(), prompt: 'def read', maxOutputTokens: 30, seed: 3, temperature: 0.7 });
    let text = '';
    for await (const piece of result.textStream) text += piece;
    expect(await result.finishReason).toBe('length');
    const whole = await generateText({
      model: model(),
      prompt: 'def read',
      maxOutputTokens: 30,
      seed: 3,
      temperature: 0.7,
    });
    expect(whole.text).toBe(text);
    expect(whole.usage.outputTokens).toBe(30);
  });

  test('calls tools and sends their results back', async () => {
    const seen: unknown[] = [];
    const add = tool({
      description: 'Adds',
      inputSchema: jsonSchema<{ a: number; b: number }>({
        type: 'object',
        properties: { a: { type: 'integer', minimum: 0, maximum: 9 }, b: { type: 'integer', minimum: 0, maximum: 9 } },
        required: ['a', 'b'],
      }),
      execute: async (given) => {
        seen.push(given);
        return { sum: given.a + given.b };
      },
    });
    const { steps } = await generateText({
      model: model(),
      prompt: 'sum',
      tools: { add },
      toolChoice: { type: 'tool', toolName: 'add' },
      stopWhen: stepCountIs(2),
      maxOutputTokens: 120,
      seed: 5,
    });
    expect(steps).toHaveLength(2);
    expect(steps[0]?.finishReason).toBe('tool-calls');
    expect(seen[0]).toEqual({ a: expect.any(Number), b: expect.any(Number) });
    expect(steps[0]?.toolResults[0]?.output).toEqual({ sum: expect.any(Number) });
  });

  test("reports errors with the server's message", async () => {
    const failing = generateText({ model: model('gpt'), prompt: 'a', maxRetries: 0 });
    await expect(failing).rejects.toSatisfy(
      (error) => APICallError.isInstance(error) && error.statusCode === 404 && /does not exist/.test(error.message),
    );
  });
});

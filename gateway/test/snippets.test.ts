import { execFile } from 'node:child_process';
import { mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { startServer, type TestServer, tokenByToken } from './testing/test-server.ts';

interface Call {
  readonly base: string;
  readonly hasKey: boolean;
  readonly isChat: boolean;
  readonly body: Readonly<Record<string, unknown>>;
}

// The pages are plain JavaScript, which a check of its own covers.
const path = '../web/snippets.js';
const { SNIPPETS } = (await import(path)) as { SNIPPETS: Record<string, (call: Call) => string> };
const run = promisify(execFile);

let server: TestServer;
beforeAll(async () => {
  server = await startServer();
  server.generator.script = () => ({ steps: tokenByToken('an answer'), finish: 'stop' });
});
afterAll(() => server.close());

const settings = { temperature: 0.5, top_k: 7, max_tokens: 9, seed: 3, stop: ['}\n', "it's"], stream: true };
const completion = { model: 'default', prompt: 'it\'s "quoted"\n', ...settings, ptp: { draft: false } };
const chat = { model: 'default', messages: [{ role: 'user', content: "What's \\n?" }], ...settings };
const callOf = (isChat: boolean): Call => ({
  base: `${server.url}/`,
  hasKey: false,
  isChat,
  body: isChat ? chat : completion,
});

/** Returns the prompt and the settings of the last request that reached the generator. */
function received() {
  const { prompt, sampling, seed, maxTokens, drafting } = server.generator.requests.at(-1) ?? {};
  return { prompt, sampling, seed, maxTokens, drafting };
}

test.each([false, true])(
  'the curl and TypeScript code send the request and print the answer (chat: %s)',
  async (isChat) => {
    const { body } = callOf(isChat);
    await (await (isChat ? server.chat(body) : server.complete(body))).text();
    const expected = received();

    const { stdout: events } = await run('bash', ['-c', SNIPPETS.curl?.(callOf(isChat)) ?? '']);
    expect(received()).toEqual(expected);
    expect(events).toContain('data: [DONE]');

    const folder = await mkdtemp(join(tmpdir(), 'ptp-snippets-'));
    try {
      await symlink(join(import.meta.dirname, '../../node_modules'), join(folder, 'node_modules'));
      const file = join(folder, 'snippet.mts');
      await writeFile(file, SNIPPETS.typescript?.(callOf(isChat)) ?? '');
      const { stdout: text } = await run(process.execPath, [file]);
      expect(text).toBe('an answer');
      expect(received()).toEqual(expected);
    } finally {
      await rm(folder, { recursive: true });
    }
  },
);

test('the Python code passes unknown fields as `extra_body`', () => {
  const code = SNIPPETS.python?.({ ...callOf(false), hasKey: true }).split('\n');
  expect(code).toEqual([
    'import os',
    '',
    'from openai import OpenAI',
    '',
    `client = OpenAI(base_url="${server.url}/v1", api_key=os.environ["PTP_API_KEY"])`,
    'stream = client.completions.create(',
    '    model="default",',
    '    prompt="it\'s \\"quoted\\"\\n",',
    '    temperature=0.5,',
    '    max_tokens=9,',
    '    seed=3,',
    '    stop=["}\\n", "it\'s"],',
    '    stream=True,',
    '    extra_body={"top_k": 7, "ptp": {"draft": False}},',
    ')',
    'for chunk in stream:',
    '    print(chunk.choices[0].text, end="", flush=True)',
  ]);
});

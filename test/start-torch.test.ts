import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { freePort, servicesOf, start } from './start-process.ts';
import { torchMissing, torchModels } from './torch.ts';

const waiting = { timeout: 300_000, interval: 100 };

describe.skipIf(torchMissing)('npm start -- --engine torch', { timeout: 300_000 }, () => {
  let url: string;
  let running: Awaited<ReturnType<typeof start>>;
  beforeAll(async () => {
    const models = ['tiny', 'tiny-feature'].map((name) => join(torchModels(), name)) as [string, string];
    const port = await freePort();
    url = `http://127.0.0.1:${port}`;
    const flags = ['--model', models[0], '--draft-model', models[1], '--port', String(port)];
    // The gateway would turn drafting off on a busy machine.
    const drafting = ['--draft-mode', 'overlap', '--draft-timeout-seconds', '10'];
    running = await start('--engine', 'torch', ...flags, ...drafting);
    await vi.waitUntil(() => running.output().includes('ready at') || running.child.exitCode !== null, waiting);
  }, 180_000);
  afterAll(() => running?.kill());

  async function post(path: string, body: object): Promise<string> {
    const response = await fetch(`${url}${path}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
    return response.text();
  }

  test('says what runs', async () => {
    const output = running.output();
    expect(output).toMatch(/ model {4}tiny, float32, \d+ kB\n/);
    expect(output).toMatch(/ engine {3}PyTorch on (cpu|cuda:0|mps), (float32|bfloat16)\n/);
    expect(output).toMatch(/ drafting tiny-feature, float32, \d+ kB, one token at a time; prompt lookup\n/);
    const { data } = JSON.parse(await (await fetch(`${url}/v1/models`)).text());
    expect(data[0].ptp).toMatchObject({ engine: 'torch', batch_invariant: expect.any(Boolean) });
  });

  test('streams a chat, and drafts leave the greedy text as it is', async () => {
    const messages = [{ role: 'user', content: 'Hi' }];
    const stream = await post('/v1/chat/completions', { messages, max_tokens: 20, stream: true, ignore_eos: true });
    expect(stream).toMatch(/^data: \{[\s\S]*data: \[DONE\]\n\n$/);
    const greedy = { prompt: 'def f(', max_tokens: 60, temperature: 0, ignore_eos: true };
    const drafted = JSON.parse(await post('/v1/completions', { ...greedy, ptp: { prompt_lookup: false } }));
    const plain = JSON.parse(await post('/v1/completions', { ...greedy, ptp: { draft: false, prompt_lookup: false } }));
    expect(drafted.choices[0].text).toBe(plain.choices[0].text);
    expect(drafted.usage.completion_tokens_details.accepted_prediction_tokens).toBeGreaterThan(0);
    expect(plain.usage.completion_tokens_details.accepted_prediction_tokens).toBe(0);
  });

  test.skipIf(process.platform !== 'linux')('restarts a worker that dies, and the service that needs it', async () => {
    process.kill(servicesOf(running.child).target as number, 'SIGKILL');
    for (const name of ['target', 'verifier']) {
      await vi.waitUntil(() => running.output().includes(`the ${name} exited`), waiting);
    }
    await vi.waitUntil(async () => (await fetch(`${url}/readyz`)).ok, waiting);
    expect(JSON.parse(await post('/v1/completions', { prompt: 'x', max_tokens: 5 })).usage.completion_tokens).toBe(5);
  });

  test('stops the workers last, and leaves no files behind', async () => {
    running.child.kill('SIGINT');
    expect(await running.ended).toBe(0);
    const output = running.output();
    expect(output.lastIndexOf('verifier | stopped')).toBeLessThan(output.lastIndexOf('target   | stopping'));
    expect(output.lastIndexOf('drafter  | stopped')).toBeLessThan(output.lastIndexOf('draft    | stopping'));
    // PyTorch leaves a folder for its cache.
    expect(readdirSync(running.folder).filter((name) => !name.startsWith('torch'))).toEqual([]);
  });
});

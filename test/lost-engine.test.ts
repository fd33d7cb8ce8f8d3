import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { loadManifest } from '@ptp/protocol/manifest';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Member } from '../bench/chaos/member.ts';
import { modelInfoOf, PairClient } from '../gateway/src/clients/pair-client.ts';
import { PairGenerator } from '../gateway/src/decode/generate.ts';
import type { GenerationRequest } from '../gateway/src/decode/types.ts';
import { silent } from './test-pair.ts';

const ROOT = join(import.meta.dirname, '..');
const model = join(ROOT, 'test', 'models', 'tiny');
const request: GenerationRequest = {
  prompt: Array.from('import torch', (c) => c.charCodeAt(0) - 32),
  sampling: { temperature: 1, topK: 0, topP: 1 },
  seed: 5n,
  maxTokens: 200,
  drafting: false,
};

let folder: string;
let engine: Member;
let verifier: Member;
let client: PairClient;
let generator: PairGenerator;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'ptp-lost-engine-'));
  const [engineAddress, address] = ['engine', 'verifier'].map((name) => `unix:${join(folder, name)}`) as [
    string,
    string,
  ];
  const command = [join(ROOT, 'bench', 'engine-worker.ts'), 'target', engineAddress, model];
  engine = new Member({ kind: 'engine', env: {}, command });
  const settings = { PTP_MODEL: model, PTP_ENGINE: engineAddress, PTP_LISTEN: address, PTP_LOG_LEVEL: 'silent' };
  verifier = new Member({ kind: 'verifier', env: settings });
  for (const member of [engine, verifier]) member.start();
  client = new PairClient({
    model: modelInfoOf(await loadManifest(model)),
    verifiers: [address],
    drafters: [],
    recoveryMs: 60_000,
    draftTimeoutMs: 2_000,
    draftLength: 8,
    verifyTimeoutMs: 10_000,
    logger: silent,
  });
  generator = new PairGenerator(client, { length: 5, budget: 16, mode: 'plain', ahead: 0 });
  await client.ready(60_000);
}, 70_000);

afterAll(async () => {
  client.close();
  for (const member of [verifier, engine]) await member.end('SIGKILL');
  await rm(folder, { recursive: true, force: true });
});

/** Decodes the request. @param act function that is called after 20 tokens */
async function text(act = async (): Promise<unknown> => undefined): Promise<number[]> {
  const tokens: number[] = [];
  for await (const step of generator.generate(request, new AbortController().signal)) {
    tokens.push(...step.tokens);
    if (tokens.length === 20) await act();
  }
  return tokens;
}

test('a verifier ends with its engine, and the stream continues with the same text once both are back', async () => {
  const expected = await text();
  expect(expected).toHaveLength(200);
  let ended = false;
  const kill = async () => {
    engine.signal('SIGKILL'); // Both processes are restarted 0.5 s after their end.
    for (const until = performance.now() + 10_000; !ended && performance.now() < until; await sleep(5)) {
      ended = !verifier.running;
    }
  };
  expect(await text(kill)).toEqual(expected);
  expect(ended).toBe(true);
}, 90_000);

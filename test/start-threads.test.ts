import type { Manifest } from '@ptp/protocol/manifest';
import { expect, test } from 'vitest';
import type { Models } from '../scripts/start-model.ts';
import { divideThreads, type LlamaDevice, shares } from '../scripts/start-threads.ts';

const model = (path: string) => ({ path, manifest: {} as Manifest });
const probe = (device: LlamaDevice | undefined) => async () => device;
const pair = { target: model('target.gguf'), draftModel: model('draft.gguf') };

test.each([
  [1, 1, 1],
  [3, 2, 1],
  [7, 6, 1],
  [15, 12, 3],
])('of %i threads, the target gets %i and the draft model %i', (threads, verifying, drafting) => {
  expect(shares(threads)).toEqual({ verifying, drafting });
});

test.each<[string, NodeJS.ProcessEnv, Models, string?]>([
  ['the user has set the number', { PTP_ENGINE_THREADS: '4' }, pair],
  ['there is no draft model', {}, { ...pair, draftModel: undefined }],
  ['ONNX Runtime drafts', {}, { ...pair, draftModel: model('folder') }],
  ['the target runs elsewhere', {}, pair, '127.0.0.1:7200'],
])('the services choose their number of threads if %s', async (_, env, models, engine = '') => {
  expect(await divideThreads(env, models, engine, probe({ gpu: false, threads: 4 }))).toEqual({});
});

test('without a GPU, the target and the draft model share the threads', async () => {
  const threads = await divideThreads({}, pair, '', probe({ gpu: false, threads: 4 }));
  expect(threads).toEqual({ verifier: { PTP_ENGINE_THREADS: '3' }, drafter: { PTP_ENGINE_THREADS: '1' } });
  expect(await divideThreads({}, pair, '', probe({ gpu: true, threads: 4 }))).toEqual({});
  expect(await divideThreads({}, pair, '', probe(undefined))).toEqual({});
});

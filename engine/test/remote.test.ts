import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { MessageInitShape } from '@bufbuild/protobuf';
import { wireErrors } from '@ptp/protocol/errors';
import {
  type DraftedBranchSchema,
  EngineService,
  type GetEngineResponseSchema,
  type RunRequest,
  type RunResponseSchema,
} from '@ptp/protocol/gen/ptp/v1/engine_pb';
import { type ImplementedService, implement, type RunningServer, serve } from '@ptp/protocol/server';
import { pino } from 'pino';
import { afterEach, expect, test, vi } from 'vitest';
import { localAddresses } from '../../scripts/local-address.ts';
import { openDraftEngine, openTargetEngine } from '../src/remote/engine.ts';
import { engineService } from '../src/testing/engine-service.ts';
import { FakeTargetEngine } from '../src/testing/fake-engine.ts';
import type { DraftEngine, TargetEngine } from '../src/types.ts';
import { tinyModel as dir } from './contract/engines.ts';

type Description = MessageInitShape<typeof GetEngineResponseSchema>;
type Kind = NonNullable<MessageInitShape<typeof RunResponseSchema>['kind']>;

const language = { vocabulary: 257, contextLength: 256, uniformsPerPosition: 9, maxSlots: 4 };
const described = {
  ...{ vocabularySize: 257, contextLength: 256, uniformsPerPosition: 9 },
  ...{ maxSlots: 4, maxSequences: 8, bytesPerToken: 4 },
};
const drafter = { checksBlocks: false, maxBranchLength: 2, yieldCurve: [0, 0.5, 0.7] };
const picking = { sampling: { temperature: 1, topK: 0, topP: 1 }, uniforms: { seed: 7n, offset: 0 } };
const limits = { start: 5_000, request: 5_000 };

const cleanups: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function newAddress(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'ptp-remote-'));
  cleanups.push(() => rm(folder, { recursive: true }));
  return (await localAddresses(folder, ['engine'])).engine;
}

async function listening(address: string, ...services: ImplementedService[]): Promise<RunningServer> {
  const server = await serve({ address, services, logger: pino({ level: 'silent' }) });
  cleanups.push(() => server.close(0));
  return server;
}

/** Returns a service that answers each request, except `open` and `close`, as the test wants. */
function scripted(
  answer: (request: RunRequest) => Kind | undefined,
  description: Description = described,
): ImplementedService {
  return implement(EngineService, {
    getEngine: () => description,
    async *run(requests) {
      for await (const request of requests) {
        const kind = request.kind.case === 'open' || request.kind.case === 'close' ? undefined : answer(request);
        if (kind) yield { id: request.id, kind };
      }
    },
  });
}

async function connected(service: ImplementedService, options = limits): Promise<TargetEngine> {
  const address = await newAddress();
  await listening(address, service);
  const engine = await openTargetEngine({ dir, address }, options);
  cleanups.push(() => engine.dispose());
  return engine;
}

const runOne = (engine: TargetEngine) => engine.run([{ sequence: engine.open(), at: 0, tokens: [1, 2], ...picking }]);

test('waits for an engine that is still starting, and logs it once', async () => {
  const address = await newAddress();
  const logger = { info: vi.fn(), warn: vi.fn() };
  const opening = openTargetEngine({ dir, address, logger }, limits);
  await sleep(600);
  await listening(address, engineService(new FakeTargetEngine(language)));
  const engine = await opening;
  cleanups.push(() => engine.dispose());
  expect((await runOne(engine)).outputs[0]?.picks).toHaveLength(2);
  expect(logger.info.mock.calls.map(([, message]) => message)).toEqual([
    'waiting for the engine',
    'connected to the engine',
  ]);
});

test('does not wait longer than the limit, nor for a server of another kind', async () => {
  const address = await newAddress();
  await expect(openTargetEngine({ dir, address }, { ...limits, start: 300 })).rejects.toMatchObject({
    code: 'failed_precondition',
    message: expect.stringContaining(`no engine has answered at ${address} within 0.3 s: start \`ptp-engine\` there`),
  });
  await listening(address);
  await expect(openTargetEngine({ dir, address }, limits)).rejects.toThrow(
    `PTP_ENGINE: ${address} is not an engine that this version can use`,
  );
});

test.each<[string, object]>([
  ['the vocabulary size of the engine at * must be 257, as in tiny, got 300', { vocabularySize: 300 }],
  ['the number of uniforms per position of the engine at * must be 9, as in tiny, got 1', { uniformsPerPosition: 1 }],
  ['the context length of the engine at * must be at least 256 (or set PTP_CONTEXT_LENGTH', { contextLength: 128 }],
  ['the number of slots of the engine at * must be at least 1, got 0', { maxSlots: 0 }],
  ['the engine at * must run a target, got a drafter', { drafter }],
])('rejects an engine that does not fit: %s', async (message, difference) => {
  const address = await newAddress();
  await listening(
    address,
    scripted(() => undefined, { ...described, ...difference }),
  );
  const opening = openTargetEngine({ dir, address }, limits);
  await expect(opening).rejects.toMatchObject({ code: 'failed_precondition', field: 'PTP_ENGINE' });
  await expect(opening).rejects.toThrow(`PTP_ENGINE: ${message.replace('*', address)}`);
});

test.each(['resource_exhausted', 'out_of_range', 'not_found'] as const)(
  'keeps the message of an error: %s',
  async (code) => {
    const value = { code: wireErrors[code].grpc, message: 'the KV pool of 64 pages is full' };
    const engine = await connected(scripted(() => ({ case: 'error', value })));
    await expect(runOne(engine)).rejects.toMatchObject({ code, message: value.message });
  },
);

test('an internal error of the engine fails the run only, and its message is only the cause', async () => {
  let runs = 0;
  const failure: Kind = { case: 'error', value: { code: 13, message: 'CUDA error' } };
  const output = { picks: [3, 4], logProbabilities: [-1, -2] };
  const success: Kind = { case: 'target', value: { outputs: [output], runUs: 7 } };
  const engine = await connected(scripted(() => (runs++ === 0 ? failure : success)));
  const sequence = engine.open();
  const run = (at: number) => engine.run([{ sequence, at, tokens: [1, 2], ...picking }]);
  await expect(run(0)).rejects.toMatchObject({
    code: 'internal',
    message: 'a model run has failed',
    cause: 'CUDA error',
  });
  await expect(run(2)).rejects.toThrow('`at` must be an integer in [0, 0], got 2');
  expect(await run(0)).toMatchObject({ outputs: [{ picks: Int32Array.of(3, 4) }], runMicros: 7 });
});

const output = { picks: [3, 4], logProbabilities: [-1, -2] };
test.each<[string, Kind]>([
  ['the number of outputs must be 1, got 0', { case: 'target', value: { outputs: [] } }],
  ['the number of picks must be 2, got 1', { case: 'target', value: { outputs: [{ ...output, picks: [3] }] } }],
  [
    'each token of the picks must be below 257, got 257',
    { case: 'target', value: { outputs: [{ ...output, picks: [3, 257] }] } },
  ],
  ['the number of log-probabilities must be 2, got 0', { case: 'target', value: { outputs: [{ picks: [3, 4] }] } }],
  ['the number of alternatives must be 0, got 1', { case: 'target', value: { outputs: [{ ...output, topIds: [1] }] } }],
  ['`draft` does not fit', { case: 'draft', value: { outputs: [] } }],
])('rejects an invalid answer of a target: %s', async (cause, kind) => {
  const engine = await connected(scripted(() => kind));
  await expect(runOne(engine)).rejects.toMatchObject({ code: 'internal', cause: expect.stringContaining(cause) });
});

const branch = { tokens: [1, 2], confidences: [0.5, 0.5] };
test.each<[string, MessageInitShape<typeof DraftedBranchSchema>[], { checksBlocks: boolean }]>([
  ['the number of branches must be 1, got 0', [], { checksBlocks: false }],
  ['the number of drafted tokens must be 2, got 1', [{ ...branch, tokens: [1] }], { checksBlocks: false }],
  ['the number of confidences must be 2, got 3', [{ ...branch, confidences: [1, 1, 1] }], { checksBlocks: false }],
  ['the number of accepted tokens must be at most 1, got undefined', [branch], { checksBlocks: true }],
  ['the number of accepted tokens must be at most 1, got 2', [{ ...branch, accepted: 2 }], { checksBlocks: true }],
])('rejects an invalid answer of a drafter: %s', async (cause, branches, { checksBlocks }) => {
  const address = await newAddress();
  const description = { ...described, drafter: { ...drafter, checksBlocks } };
  await listening(
    address,
    scripted(() => ({ case: 'draft', value: { outputs: [{ branches }] } }), description),
  );
  const engine: DraftEngine = await openDraftEngine({ dir, address }, limits);
  cleanups.push(() => engine.dispose());
  const request = checksBlocks
    ? { branches: [], check: { block: 1, length: 2 } }
    : { branches: [{ visible: 2, length: 2 }] };
  const slot = { sequence: engine.open(), at: 0, tokens: [1, 2], ...picking, ...request };
  await expect(engine.run([slot])).rejects.toMatchObject({ code: 'internal', cause: expect.stringContaining(cause) });
});

test('an engine that does not answer in time is dead', async () => {
  const engine = await connected(
    scripted(() => undefined),
    { ...limits, request: 200 },
  );
  await expect(runOne(engine)).rejects.toMatchObject({ code: 'unavailable' });
  expect(await engine.died).toMatchObject({ message: 'the engine has not answered for 0.2 s' });
});

test('an engine that ends the stream is dead, even if nothing is in flight', async () => {
  const ending = implement(EngineService, { getEngine: () => described, async *run() {} });
  const engine = await connected(ending);
  expect(await engine.died).toMatchObject({ code: 'unavailable', message: 'the engine has ended the stream' });
  expect(() => engine.open()).toThrow('the engine has ended the stream');
});

test('opens no more sequences than the engine allows', async () => {
  const engine = await connected(scripted(() => undefined));
  for (let i = 0; i < 8; i++) engine.open();
  expect(() => engine.open()).toThrow('overloaded: 8 sequences are open already');
});

test('several clients use the same sequence ids, and the sequences of a lost client are closed', async () => {
  const local = new FakeTargetEngine(language);
  const address = await newAddress();
  await listening(address, engineService(local));
  const open = () => openTargetEngine({ dir, address }, limits);
  const [one, other] = [await open(), await open()];
  const sequences = [one.open(), other.open()] as const;
  expect(sequences[0]).toBe(sequences[1]);
  await Promise.all([
    one.run([{ sequence: sequences[0], at: 0, tokens: [1, 2, 3] }]),
    other.run([{ sequence: sequences[1], at: 0, tokens: [4, 5] }]),
  ]);
  const picked = await one.run([{ sequence: sequences[0], at: 3, tokens: [6], ...picking }]);
  const sequence = local.open();
  const expected = await local.run([{ sequence, at: 0, tokens: [1, 2, 3, 6], ...picking }]);
  expect(picked.outputs[0]?.picks[0]).toBe(expected.outputs[0]?.picks[3]);
  local.close(sequence);
  expect(local.usage().sequences).toBe(2);
  await one.dispose();
  await vi.waitFor(() => expect(local.usage().sequences).toBe(1));
  await other.run([{ sequence: sequences[1], at: 2, tokens: [1] }]);
  await other.dispose();
  await vi.waitFor(() => expect(local.usage().sequences).toBe(0));
});

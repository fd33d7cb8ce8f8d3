import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fromBinary } from '@bufbuild/protobuf';
import { anyUnpack } from '@bufbuild/protobuf/wkt';
import { credentials, loadPackageDefinition, type ServiceError } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { pino } from 'pino';
import { afterEach, describe, expect, test } from 'vitest';
import { connect, openChannel, type ServiceClient } from '../src/client.ts';
import { PtpError } from '../src/errors.ts';
import { BadRequestSchema, RetryInfoSchema } from '../src/gen/google/rpc/error_details_pb.ts';
import { StatusSchema } from '../src/gen/google/rpc/status_pb.ts';
import { GenerationService } from '../src/gen/ptp/v1/generation_pb.ts';
import { VerifierService } from '../src/gen/ptp/v1/verifier_pb.ts';
import { checkHealth, watchHealth } from '../src/health.ts';
import { serviceDefinition } from '../src/methods.ts';
import {
  type CallContext,
  type Implementation,
  implement,
  type RunningServer,
  type ServeOptions,
  serve,
} from '../src/server.ts';

type Verifier = Implementation<typeof VerifierService>;

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

/** A verifier that accepts every draft, and whose next token is the number of the step. */
const echo: Verifier['verify'] = async function* (requests) {
  for await (const { kind } of requests) {
    if (kind.case === 'open')
      yield { kind: { case: 'opened', value: { cachedTokens: kind.value.start?.tokens.length ?? 0 } } };
    if (kind.case !== 'step') continue;
    const { step, draft } = kind.value;
    yield { kind: { case: 'result', value: { step, accepted: draft.length, nextToken: step } } };
  }
};

function verifier(implementation: Partial<Verifier>) {
  return implement(VerifierService, { getTarget: () => ({ openSequences: 7 }), verify: echo, ...implementation });
}

async function start(implementation: Partial<Verifier> = {}, options: Partial<ServeOptions> = {}) {
  const lines: string[] = [];
  const logger = pino({ level: 'debug' }, { write: (line) => void lines.push(line) });
  const services = [verifier(implementation)];
  const server = await serve({ address: '127.0.0.1:0', services, logger, ...options });
  cleanups.push(() => server.close(0));
  return { server, lines, client: client(server) };
}

function client({ address }: RunningServer): ServiceClient<typeof VerifierService> {
  const result = connect(VerifierService, address);
  cleanups.push(() => result.close());
  return result;
}

async function temporaryFolder(): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'ptp-rpc-'));
  cleanups.push(() => rm(path, { recursive: true, force: true }));
  return path;
}

const step = (index: number, draft: number[] = []) => ({
  kind: { case: 'step' as const, value: { step: index, draft } },
});

describe('calls', () => {
  test('unary, and a stream of many steps over TCP', async () => {
    const { client } = await start();
    expect(await client.getTarget({})).toMatchObject({ openSequences: 7 });
    const call = client.verify();
    call.send({ kind: { case: 'open', value: { start: { tokens: [1, 2, 3], seed: 2n ** 63n } } } });
    expect((await call.receive())?.kind).toMatchObject({ case: 'opened', value: { cachedTokens: 3 } });
    for (let index = 0; index < 300; index++) {
      call.send(step(index, [5, 6]));
      expect((await call.receive())?.kind.value).toMatchObject({ step: index, accepted: 2, nextToken: index });
    }
    call.close();
    expect(await call.receive()).toBeUndefined();
    expect(await call.receive()).toBeUndefined();
  });

  test('a slow receiver gets everything in order, and slows the sender down', async () => {
    let sent = 0;
    const { client } = await start({
      verify: async function* () {
        const logProbabilities = Array(20_000).fill(-1); // 80 kB a message
        for (; sent < 300; sent++) yield { kind: { case: 'result', value: { step: sent, logProbabilities } } };
      },
    });
    const call = client.verify();
    const first = await call.receive();
    await sleep(300);
    expect(sent).toBeLessThan(200);
    const steps = [first];
    for await (const message of call) steps.push(message);
    expect(steps.map((message) => message?.kind.case === 'result' && message.kind.value.step)).toEqual([
      ...Array(300).keys(),
    ]);
  });

  test('a receiver that keeps reading slowly is not disconnected', async () => {
    const { client } = await start(
      {
        verify: async function* () {
          const logProbabilities = Array(20_000).fill(-1); // 80 kB a message
          for (let step = 0; step < 60; step++) yield { kind: { case: 'result', value: { step, logProbabilities } } };
        },
      },
      { stallMillis: 400 },
    );
    const call = client.verify();
    let read = 0;
    for await (const _ of call) {
      read++;
      await sleep(60);
    }
    expect(read).toBe(60);
  });

  test('a receiver that stops reading is disconnected, and gets the error if it reads again', async () => {
    let sent = 0;
    const ended = Promise.withResolvers<void>();
    const verify = async function* () {
      const logProbabilities = Array(20_000).fill(-1); // 80 kB a message
      try {
        for (; ; sent++) yield { kind: { case: 'result' as const, value: { step: sent, logProbabilities } } };
      } finally {
        ended.resolve();
      }
    };
    const { client, server } = await start({ verify }, { stallMillis: 100 });
    const call = client.verify();
    await ended.promise;
    await expect.poll(() => server.activeCalls()).toBe(0);
    expect(sent).toBeLessThan(200);
    const read = async () => {
      for await (const _ of call) sent--;
    };
    await expect(read()).rejects.toMatchObject({
      code: 'deadline_exceeded',
      message: 'the client read no data for 100 ms',
    });
    expect(sent).toBe(-1); // each message is larger than the window, so the client had requested all that was written
  });

  test('server streaming, left early', async () => {
    const ended = Promise.withResolvers<CallContext>();
    const generation = implement(GenerationService, {
      generate: async function* ({ prompt }, context) {
        try {
          for (let index = 0; ; index++) {
            yield { text: `${prompt.value}${index}` };
            await sleep(1, undefined, { signal: context.signal });
          }
        } finally {
          ended.resolve(context);
        }
      },
      tokenize: () => ({}),
      getModel: () => ({}),
    });
    const { server } = await start({}, { services: [generation] });
    const generator = connect(GenerationService, server.address);
    cleanups.push(() => generator.close());
    const texts: string[] = [];
    for await (const { text } of generator.generate({ prompt: { case: 'text', value: 'a' } })) {
      if (texts.push(text) === 3) break;
    }
    expect(texts).toEqual(['a0', 'a1', 'a2']);
    expect((await ended.promise).signal.reason).toMatchObject({ code: 'cancelled' });
  });

  test('metadata, deadline and peer reach the handler', async () => {
    let seen: CallContext | undefined;
    const { client } = await start({
      getTarget: (_request, context) => {
        seen = context;
        return {};
      },
    });
    await client.getTarget({}, { metadata: { tenant: 'a' }, deadlineMs: 5_000 });
    expect(seen?.metadata.get('tenant')).toEqual(['a']);
    expect((seen?.deadline ?? 0) - Date.now()).toBeGreaterThan(3_000);
    expect(seen?.peer).toMatch(/^127\.0\.0\.1:\d+$/);
    expect(seen?.path).toBe('/ptp.v1.VerifierService/GetTarget');
  });
});

describe('a call that fails', () => {
  test('carries code, message and field of a PtpError, after the messages before it', async () => {
    const { client } = await start({
      verify: async function* (requests) {
        for await (const _ of requests) {
          yield { kind: { case: 'result', value: { step: 1 } } };
          throw new PtpError('out_of_range', '`draft` must have at most 32 tokens, got 40 \ud800 é', {
            field: 'draft',
          });
        }
      },
    });
    const call = client.verify();
    call.send(step(0));
    await sleep(50);
    expect(await call.receive()).toMatchObject({ kind: { value: { step: 1 } } });
    const expected = {
      code: 'out_of_range',
      field: 'draft',
      message: '`draft` must have at most 32 tokens, got 40 \ufffd é',
    };
    await expect(call.receive()).rejects.toMatchObject(expected);
    await expect(call.receive()).rejects.toBeInstanceOf(PtpError);
    call.send(step(1)); // a failed call drops messages
  });

  test('because it is cancelled right after its start leaves nothing open on the server', async () => {
    const { server, client } = await start();
    await client.getTarget({});
    const calls = [client.verify({ signal: AbortSignal.abort() }), client.verify()];
    for (const call of calls) call.send(step(0));
    calls[1]?.cancel();
    for (const call of calls) await expect(call.receive()).rejects.toMatchObject({ code: 'cancelled' });
    await sleep(100);
    expect(server.activeCalls()).toBe(0);
  });

  test('carries a field name chosen by the client', async () => {
    let field = '';
    const { client } = await start({
      getTarget: () => {
        throw new PtpError('invalid_argument', `\`${field}\` is wrong`, { field });
      },
    });
    for (field of ['schema.properties.é', 'schema.properties.100%', 'a 😀 \n b']) {
      await expect(client.getTarget({})).rejects.toMatchObject({ code: 'invalid_argument', field });
    }
    field = 'schema.properties.\ud800';
    await expect(client.getTarget({})).rejects.toMatchObject({ field: 'schema.properties.\ufffd' });
    field = 'é'.repeat(100_000);
    const shown = { message: `\`${'é'.repeat(399)}...`, field: `${'é'.repeat(200)}...` };
    await expect(client.getTarget({})).rejects.toMatchObject(shown);
  });

  test('carries the invalid field and the retry delay as google.rpc.Status', async () => {
    const { server } = await start({
      getTarget: () => {
        throw new PtpError('resource_exhausted', 'too many', { field: 'n', retryAfterMs: 1500 });
      },
    });
    const channel = openChannel(server.address);
    cleanups.push(() => channel.close());
    const { getTarget } = serviceDefinition(VerifierService);
    const { path, requestSerialize, responseDeserialize } = getTarget as NonNullable<typeof getTarget>;
    const error = await new Promise<ServiceError | null>((resolve) => {
      channel.makeUnaryRequest(path, requestSerialize, responseDeserialize, {}, resolve);
    });
    const [bytes] = error?.metadata.get('grpc-status-details-bin') ?? [];
    const status = fromBinary(StatusSchema, bytes as Buffer);
    expect(status).toMatchObject({ code: 8, message: 'too many' });
    const [bad, retry] = status.details;
    expect(bad && anyUnpack(bad, BadRequestSchema)).toMatchObject({
      fieldViolations: [{ field: 'n', description: 'too many' }],
    });
    expect(retry && anyUnpack(retry, RetryInfoSchema)).toMatchObject({
      retryDelay: { seconds: 1n, nanos: 500_000_000 },
    });
  });

  test('hides the details of an unforeseen error and logs them', async () => {
    const { client, lines } = await start({
      getTarget: () => {
        throw new TypeError('secret');
      },
      verify: () => {
        throw new TypeError('secret');
      },
    });
    const failure = { code: 'internal', message: 'internal error' };
    await expect(client.getTarget({})).rejects.toMatchObject(failure);
    await expect(client.verify().receive()).rejects.toMatchObject(failure);
    expect(lines.filter((line) => line.includes('"level":50') && line.includes('secret'))).toHaveLength(2);
  });

  test('on a response that does not fit its schema is an internal error, logged', async () => {
    const { client, lines } = await start({
      verify: async function* () {
        yield { kind: { case: 'result', value: { step: -1 } } };
      },
    });
    await expect(client.verify().receive()).rejects.toMatchObject({ code: 'internal' });
    expect(lines.join()).toContain('step');
  });

  test('on a request that does not fit its schema throws in send', async () => {
    const { client } = await start();
    const call = client.verify();
    expect(() => call.send(step(-1))).toThrow(/step/);
    await expect(client.getTarget({}, { metadata: {} })).resolves.toBeDefined();
    call.cancel();
  });

  test('on a message above the limit is resource_exhausted', async () => {
    const { client } = await start({}, { maxMessageBytes: 1_000 });
    const call = client.verify();
    call.send(step(0, Array(2_000).fill(1)));
    await expect(call.receive()).rejects.toMatchObject({ code: 'resource_exhausted' });
  });

  test('without a server is unavailable, and names no address', async () => {
    const client = connect(VerifierService, `unix:${await temporaryFolder()}/none`);
    cleanups.push(() => client.close());
    const failure = { code: 'unavailable', message: 'the service cannot be reached' };
    await expect(client.getTarget({})).rejects.toMatchObject(failure);
    await expect(client.verify().receive()).rejects.toMatchObject(failure);
    await expect(client.waitForReady(50)).rejects.toMatchObject(failure);
  });
});

describe('cancelling', () => {
  /** A verifier whose calls end only when aborted. */
  async function stuck() {
    const opened = Promise.withResolvers<CallContext>();
    const ended = Promise.withResolvers<void>();
    const running = await start({
      verify: async function* (requests, context) {
        opened.resolve(context);
        try {
          for await (const _ of requests);
          await sleep(60_000, undefined, { signal: context.signal });
          yield { kind: { case: undefined } };
        } finally {
          ended.resolve();
        }
      },
    });
    return { ...running, opened: opened.promise, ended: ended.promise };
  }

  test('by the client aborts the signal and ends the requests', async () => {
    const { client, server, opened, ended } = await stuck();
    const call = client.verify();
    const pending = call.receive();
    const { signal } = await opened;
    expect(server.activeCalls()).toBe(1);
    call.cancel();
    await expect(pending).rejects.toMatchObject({ code: 'cancelled' });
    await ended;
    expect(signal.reason).toMatchObject({ code: 'cancelled' });
    await expect.poll(server.activeCalls).toBe(0);
  });

  test('by a signal keeps the reason of the signal', async () => {
    const { client, opened, ended } = await stuck();
    const controller = new AbortController();
    const call = client.verify({ signal: controller.signal });
    await opened;
    controller.abort(new PtpError('resource_exhausted', 'too many'));
    await expect(call.receive()).rejects.toMatchObject({ code: 'resource_exhausted' });
    await ended;
    const late = client.verify({ signal: controller.signal });
    await expect(late.receive()).rejects.toMatchObject({ code: 'resource_exhausted' });
    await expect(client.getTarget({}, { signal: controller.signal })).rejects.toMatchObject({ message: 'too many' });
  });

  test('with a farewell resets no stream, so that many cancelled calls do not end the others', async () => {
    const { client, server } = await start({}, { resetBurst: 20 });
    const other = client.verify();
    const farewell = { kind: { case: 'cancel', value: {} } } as const;
    const controller = new AbortController();
    const calls = Array.from({ length: 100 }, () => client.verify({ signal: controller.signal, farewell }));
    for (const call of calls) call.send(step(0));
    await Promise.all(calls.map((call) => call.receive()));
    const pending = calls.map((call) => expect(call.receive()).rejects.toMatchObject({ message: 'stopped' }));
    controller.abort(new PtpError('cancelled', 'stopped'));
    await Promise.all(pending);
    await expect.poll(() => server.activeCalls()).toBeLessThanOrEqual(1);
    other.send(step(3));
    expect(await other.receive()).toMatchObject({ kind: { value: { step: 3 } } });
  });

  test('by the farewell aborts a handler that is busy with an earlier message', async () => {
    const { client, opened, ended } = await stuck();
    const call = client.verify({ farewell: { kind: { case: 'cancel', value: {} } } });
    call.send(step(0));
    const { signal } = await opened;
    call.cancel();
    await expect(call.receive()).rejects.toMatchObject({ code: 'cancelled' });
    await ended;
    expect(signal.reason).toMatchObject({ code: 'cancelled' });
  });

  test('more often than Node allows does not end the other calls of a connection', async () => {
    const { client } = await start();
    const other = client.verify();
    for (let i = 0; i < 12; i++) {
      const calls = Array.from({ length: 100 }, () => client.verify());
      for (const call of calls) call.send(step(0));
      await Promise.all(calls.map((call) => call.receive()));
      for (const call of calls) call.cancel();
    }
    other.send(step(3));
    expect(await other.receive()).toMatchObject({ kind: { value: { step: 3 } } });
  });

  test('by the deadline, on both sides', async () => {
    const { client, opened, ended } = await stuck();
    const call = client.verify({ deadlineMs: 100 });
    await expect(call.receive()).rejects.toMatchObject({ code: 'deadline_exceeded' });
    await ended;
    expect((await opened).signal.reason).toMatchObject({ code: expect.stringMatching(/deadline_exceeded|cancelled/) });
  });

  test('by losing the connection', async () => {
    const { client, opened, ended, server } = await stuck();
    const call = client.verify();
    await opened;
    const pending = expect(call.receive()).rejects.toMatchObject({ code: 'unavailable' });
    await server.close(0);
    await pending;
    await ended;
  });
});

describe('serve', () => {
  test('health is SERVING, also for each service, and changes to NOT_SERVING', async () => {
    const { server } = await start();
    expect(await checkHealth(server.address)).toBe('SERVING');
    expect(await checkHealth(server.address, VerifierService)).toBe('SERVING');
    await expect(checkHealth(server.address, GenerationService)).rejects.toMatchObject({ code: 'not_found' });
    server.setServing(false);
    expect(await checkHealth(server.address, VerifierService)).toBe('NOT_SERVING');
  });

  test('close notifies watchers, waits for calls in progress and rejects new ones', async () => {
    const { server, client } = await start();
    const controller = new AbortController();
    const renew = () => {
      const channel = openChannel(server.address, { apart: true });
      cleanups.push(() => channel.close());
      return channel;
    };
    const statuses = watchHealth(renew, VerifierService, controller);
    expect((await statuses.next()).value).toBe('SERVING');
    const call = client.verify();
    call.send(step(0));
    await call.receive();
    const closed = server.close(5_000);
    expect((await statuses.next()).value).toBe('NOT_SERVING');
    expect((await statuses.next()).value).toBe('UNREACHABLE');
    controller.abort();
    expect((await statuses.next()).done).toBe(true);
    call.send(step(1));
    expect(await call.receive()).toMatchObject({ kind: { value: { step: 1 } } });
    await expect(client.getTarget({}, { deadlineMs: 1_000 })).rejects.toMatchObject({ code: 'unavailable' });
    call.close();
    expect(await call.receive()).toBeUndefined();
    await closed;
  });

  test('close is forced after the grace period even if a handler never returns', async () => {
    const { server, client } = await start({
      verify: async function* () {
        await new Promise(() => {});
      },
    });
    const call = client.verify();
    const pending = expect(call.receive()).rejects.toBeInstanceOf(PtpError);
    while (server.activeCalls() === 0) await sleep(5);
    const before = performance.now();
    await server.close(50);
    await pending;
    expect(performance.now() - before).toBeLessThan(2_000);
  });

  test('a client reconnects to a server that comes back', async () => {
    const { server, client } = await start();
    await client.getTarget({});
    await server.close(0);
    await expect(client.getTarget({})).rejects.toMatchObject({ code: 'unavailable' });
    const again = await start({}, { address: server.address });
    await client.waitForReady(5_000);
    expect(await client.getTarget({})).toMatchObject({ openSequences: 7 });
    await again.server.close(0);
  });

  test('a port in use gives one clear line', async () => {
    const holder = createServer().listen(0, '127.0.0.1');
    await once(holder, 'listening');
    cleanups.push(() => holder.close());
    const { port } = holder.address() as { port: number };
    const taken = start({}, { address: `127.0.0.1:${port}`, setting: 'PTP_LISTEN' });
    await expect(taken).rejects.toThrow(`127.0.0.1:${port} is in use: set PTP_LISTEN to another address`);
  });

  test('unix sockets: one in use is an error, a stale one is replaced, a file is an error, and no socket remains at the end', async () => {
    const folder = await temporaryFolder();
    const path = join(folder, 'socket');
    const { server, client } = await start({}, { address: `unix:${path}` });
    expect(await client.getTarget({})).toMatchObject({ openSequences: 7 });
    await expect(start({}, { address: `unix:${path}` })).rejects.toThrow(/is in use/);
    await server.close(0);
    await expect(stat(path)).rejects.toThrow('ENOENT');

    const die = "require('net').createServer().listen(process.argv[1], () => process.kill(process.pid, 'SIGKILL'))";
    spawnSync(process.execPath, ['-e', die, path]);
    expect((await stat(path)).isSocket()).toBe(true);
    const second = await start({}, { address: `unix:${path}` });
    await second.client.waitForReady(5_000);
    expect(await second.client.getTarget({})).toMatchObject({ openSequences: 7 });

    await writeFile(join(folder, 'file'), '');
    await expect(start({}, { address: `unix:${folder}/file` })).rejects.toThrow(/is a file, not a socket/);
  });

  test('reflection lists the services and describes their messages', async () => {
    const { server } = await start();
    const answers = await reflect(server.address, [
      { list_services: '' },
      { file_containing_symbol: 'ptp.v1.VerifyStep' },
    ]);
    const names = answers[0]?.list_services_response?.service.map(({ name }) => name);
    expect(names).toEqual(expect.arrayContaining(['ptp.v1.VerifierService', 'grpc.health.v1.Health']));
    const files = answers[1]?.file_descriptor_response?.file_descriptor_proto.map((bytes) => bytes.toString('latin1'));
    expect(files?.length).toBe(2);
    expect(files?.join()).toContain('ptp/v1/common.proto');
  });
});

interface ReflectionAnswer {
  list_services_response?: { service: { name: string }[] };
  file_descriptor_response?: { file_descriptor_proto: Buffer[] };
}

/** Queries reflection as grpcurl does, with the proto of the reflection package. */
async function reflect(address: string, requests: object[]): Promise<ReflectionAnswer[]> {
  const proto = new URL(
    '../../node_modules/@grpc/reflection/build/proto/grpc/reflection/v1/reflection.proto',
    import.meta.url,
  );
  // biome-ignore lint/suspicious/noExplicitAny: loaded at run time
  const loaded = loadPackageDefinition(loadSync(proto.pathname, { keepCase: true })) as any;
  const client = new loaded.grpc.reflection.v1.ServerReflection(address, credentials.createInsecure());
  const call = client.ServerReflectionInfo();
  const answers: ReflectionAnswer[] = [];
  for (const request of requests) {
    call.write(request);
    answers.push((await once(call, 'data'))[0]);
  }
  call.end();
  client.close();
  return answers;
}

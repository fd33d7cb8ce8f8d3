import { execFile, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { type AddressInfo, connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createServer as createTlsServer } from 'node:tls';
import { promisify } from 'node:util';
import { Tls } from '@ptp/protocol/credentials';
import { expect, test, vi } from 'vitest';
import { BadNetwork } from '../chaos/bad-network.ts';
import { Authority } from '../chaos/certificates.ts';
import { count, newTally } from '../chaos/clients.ts';
import { FAULT_NAMES } from '../chaos/faults/index.ts';
import { tlsResets } from '../chaos/faults/tls-resets.ts';
import type { Fleet } from '../chaos/fleet.ts';
import { servedCertificate } from '../chaos/handshake.ts';
import { measureLoopDelay, timeHeld } from '../chaos/loop-delay.ts';
import { Member } from '../chaos/member.ts';
import { promisesOf } from '../chaos/run.ts';
import { injectFaults } from '../chaos/schedule.ts';
import { Random } from '../random.ts';

test('`npm run chaos` lists the faults if --only selects none', async () => {
  const run = promisify(execFile)(process.execPath, ['bench/chaos/main.ts', '--only', 'enigne']);
  const error = `error: option '--only <text>' argument 'enigne' is invalid. It must be a part of the name of a fault:\n`;
  await expect(run).rejects.toMatchObject({ code: 1, stderr: `${error}${FAULT_NAMES.join('\n')}\n` });
  expect(FAULT_NAMES).toContain('verifier engine hung for a while');
}, 60_000);

test('an error status is a failure, except those of an overloaded server and of one without a verifier', () => {
  const tally = newTally();
  for (const status of [429, 503, 503, 500, 400]) count({ status, message: `status ${status}` }, tally);
  count({ status: undefined, message: 'reset' }, tally);
  expect(tally).toMatchObject({ refused: { 429: 1, 503: 2 }, failed: 2, lost: 1 });
  expect(tally.errors).toEqual({ 'status 500': 1, 'status 400': 1, reset: 1 });
});

test('waiting for a core does not count as holding the event loop, but blocked system calls do', async () => {
  expect(timeHeld(400, 392)).toBe(8);
  expect(timeHeld(-1, 0)).toBe(0);
  const loop = measureLoopDelay();
  const turn = () => new Promise((resolve) => setTimeout(resolve, 15));
  await turn();
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 200);
  await turn();
  loop.stop();
  const { delay, held } = loop.read();
  expect(held.max).toBeGreaterThan(150);
  expect(held.max).toBeLessThanOrEqual(delay.max);
});

test('a run without a right answer, or without a fault, breaks a promise', () => {
  expect(promisesOf(newTally(), 0, true)).toMatchObject({ nothing_right: 1, no_faults: 1 });
  expect(promisesOf({ ...newTally(), right: 1 }, 0, false)).toMatchObject({ nothing_right: 0, no_faults: 0 });
});

test('an unexpected end of a process is a crash, unless its engine was killed or hung', async () => {
  const crashes: string[] = [];
  const onCrash = (problem: string) => crashes.push(problem);
  const engine = new Member({ kind: 'engine', env: {}, command: ['-e', 'setInterval(() => {}, 1000)'], onCrash });
  const service = new Member({
    kind: 'verifier',
    env: {},
    command: ['-e', 'setInterval(() => {}, 1000)'],
    engine,
    onCrash,
  });
  for (const member of [engine, service]) member.start();
  try {
    service.signal('SIGKILL');
    await expect.poll(() => crashes).toEqual(['verifier ended unexpectedly: SIGKILL']);
    await expect.poll(() => service.running, { timeout: 5000 }).toBe(true);
    await engine.end('SIGKILL');
    service.signal('SIGKILL');
    await expect.poll(() => service.running).toBe(false);
    expect(service.usage).toEqual({ mb: 0, handles: 0 });
    await expect.poll(() => service.running, { timeout: 5000 }).toBe(true);
    expect(crashes).toHaveLength(1);
  } finally {
    await service.end('SIGKILL');
  }
});

test('a fault that throws is a broken promise', async () => {
  const fleet = { verifiers: [], drafters: [], broken: [] as string[] };
  const over = new AbortController();
  const options = { pause: 1, only: "gateway's certificate" };
  await injectFaults(fleet as unknown as Fleet, new Random(1), options, () => over.abort(), over.signal);
  expect(fleet.broken).toEqual([expect.stringContaining("gateway's certificate renewed before its key: ")]);
});

test('bytes arrive in order when a delay ends', async () => {
  const target = createServer((socket) => socket.pipe(socket)).listen(0, '127.0.0.1');
  await once(target, 'listening');
  const network = await BadNetwork.start({ port: (target.address() as AddressInfo).port, host: '127.0.0.1' });
  const client = connect(network.port, '127.0.0.1').setEncoding('utf8');
  try {
    let text = '';
    client.on('data', (chunk) => {
      text += chunk;
    });
    network.delayMs = 200;
    client.write('first ');
    await new Promise((resolve) => setTimeout(resolve, 50));
    network.delayMs = 0;
    client.write('second');
    await vi.waitFor(() => expect(text).toHaveLength(12));
    expect(text).toBe('first second');
  } finally {
    client.destroy();
    network.close();
    target.close();
  }
});

test.skipIf(spawnSync('openssl', ['version']).status !== 0)(
  'TLS handshakes are completed before they are reset (skipped without openssl)',
  async () => {
    const folder = mkdtempSync(join(tmpdir(), 'ptp-resets-'));
    const authority = new Authority(folder);
    const identity = authority.issue('gateway');
    const tls = new Tls(identity);
    const mutual = { ...tls.identity, requestCert: true, rejectUnauthorized: true };
    const servers = ['h2', 'http/1.1'].map((protocol) => createTlsServer({ ...mutual, ALPNProtocols: [protocol] }));
    const handshakes = servers.map((server) => {
      server.on('tlsClientError', () => {});
      const completed = vi.fn((socket) => socket.on('error', () => {}));
      server.on('secureConnection', completed);
      return completed;
    });
    try {
      for (const server of servers) await once(server.listen(0, '127.0.0.1'), 'listening');
      const ports = servers.map((server) => (server.address() as AddressInfo).port);
      const endpoints = ports.map((port) => ({ port, member: { running: true, kind: 'gateway' } }));
      const fleet = { endpoints, tls, broken: [] } as unknown as Fleet;
      await tlsResets.stop(fleet, await tlsResets.start(fleet, new Random(1)));
      expect(fleet.broken).toEqual([]);
      for (const completed of handshakes) expect(completed).toHaveBeenCalled();
      const certificate = await servedCertificate(ports[0] as number);
      expect(certificate?.toString()).toBe(readFileSync(identity.cert, 'utf8'));
    } finally {
      for (const server of servers) server.close();
      rmSync(folder, { recursive: true });
    }
  },
);

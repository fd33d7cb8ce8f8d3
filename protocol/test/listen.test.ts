import dns from 'node:dns/promises';
import { once } from 'node:events';
import { syncBuiltinESMExports } from 'node:module';
import { createServer } from 'node:net';
import { Server } from '@grpc/grpc-js';
import { afterEach, expect, test, vi } from 'vitest';
import { listen } from '../src/listen.ts';

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
  vi.restoreAllMocks();
  syncBuiltinESMExports();
});

/** Address for documentation (RFC 5737), which no machine has. */
const FOREIGN = '192.0.2.1';

/** Listens on a name that has the given addresses. */
async function listenAt(port: number, addresses: readonly string[]) {
  const found = addresses.map((address) => ({ address, family: 4 }));
  vi.spyOn(dns, 'lookup').mockResolvedValue(found as never);
  syncBuiltinESMExports();
  const server = new Server();
  cleanups.push(() => server.forceShutdown());
  const listening = await listen(server, `name:${port}`, 'PTP_LISTEN');
  cleanups.push(() => listening.close());
  return listening;
}

test.each([
  ['an address that the machine lacks', ['127.0.0.1', FOREIGN]],
  ['a first address that the machine lacks', [FOREIGN, '127.0.0.1']],
  ['the same address twice', ['127.0.0.1', '127.0.0.1']],
])('listens on a name with %s', async (_, found) => {
  expect((await listenAt(0, found)).address).toMatch(/^name:[1-9]\d*$/);
});

test('listens on all addresses of a name', async () => {
  const { address } = await listenAt(0, ['127.0.0.1', '127.0.0.2']);
  const port = Number(address.split(':')[1]);
  for (const host of ['127.0.0.1', '127.0.0.2']) {
    const blocked = createServer().listen(port, host);
    expect((await once(blocked, 'error'))[0]).toMatchObject({ code: 'EADDRINUSE' });
  }
});

test('fails for a name without any address of the machine', async () => {
  await expect(listenAt(0, [FOREIGN])).rejects.toMatchObject({
    field: 'PTP_LISTEN',
    message: expect.stringMatching(/^cannot listen on name:0: .*EADDRNOTAVAIL.*set PTP_LISTEN/),
  });
});

test('fails if a fixed port is taken at one of the addresses', async () => {
  const holder = createServer().listen(0, '127.0.0.2');
  await once(holder, 'listening');
  cleanups.push(() => holder.close());
  const { port } = holder.address() as { port: number };
  await expect(listenAt(port, ['127.0.0.1', '127.0.0.2'])).rejects.toThrow(`name:${port} is in use: set PTP_LISTEN`);
});

import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect as connectTls } from 'node:tls';
import { Server } from '@grpc/grpc-js';
import { afterEach, describe, expect, test } from 'vitest';
import { Authority, type Identity } from '../../bench/chaos/certificates.ts';
import { connectionLimit } from '../src/connection-limit.ts';
import { Tls, type TlsOptions } from '../src/credentials.ts';
import { type DoorOptions, openDoor } from '../src/door.ts';

const closing: (() => Promise<void> | void)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

/** Opens a door, and returns its port. */
async function open(options: Omit<DoorOptions, 'where'>): Promise<number> {
  const server = new Server();
  const door = await openDoor(server, { where: { host: '127.0.0.1', port: 0 }, ...options });
  closing.push(async () => {
    door.destroy();
    await door.close();
    server.forceShutdown();
  });
  return Number(door.port);
}

test('a server uses at most a third of the files that may be open', () => {
  const limits = (files: string) =>
    `Limit  Soft Limit  Hard Limit\nMax open files            ${files}  1048576  files\n`;
  expect(['1024', '1048576', 'unlimited'].map((files) => connectionLimit(limits(files)))).toEqual([341, 4096, 4096]);
  expect(connectionLimit('')).toBe(4096);
});

test('closes a connection on which no client begins to speak HTTP/2', async () => {
  const socket = connect(await open({ tls: undefined, firstBytesMs: 100 }), '127.0.0.1').resume();
  await once(socket, 'close');
  expect(socket.destroyed).toBe(true);
});

test('closes connections above the limit, and accepts others once some have ended', async () => {
  const port = await open({ tls: undefined, maxConnections: 2 });
  /** Returns true if the server begins to speak HTTP/2, and false if it closes the connection. */
  const answers = (socket: Socket) =>
    new Promise<boolean>((resolve) => {
      socket.on('error', () => {}).on('data', () => resolve(true));
      socket.on('close', () => resolve(false));
      socket.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0');
    });
  const [first, second] = [connect(port, '127.0.0.1'), connect(port, '127.0.0.1')];
  expect(await Promise.all([answers(first), answers(second)])).toEqual([true, true]);
  expect(await answers(connect(port, '127.0.0.1'))).toBe(false);
  first.destroy();
  await expect.poll(() => answers(connect(port, '127.0.0.1'))).toBe(true);
  second.destroy();
});

describe.skipIf(spawnSync('openssl', ['version']).status !== 0)('with TLS (skipped without openssl)', () => {
  /** Creates a door with the certificate of a verifier. */
  async function openTls(options: TlsOptions = {}) {
    const folder = mkdtempSync(join(tmpdir(), 'ptp-door-'));
    closing.push(() => rmSync(folder, { recursive: true }));
    const authority = new Authority(folder);
    const own = authority.issue('verifier');
    const port = await open({ tls: new Tls(own, options) });
    /** Returns the chosen protocol, or undefined if the connection is not accepted. */
    const call = (identity: Identity, ALPNProtocols?: string[]) =>
      new Promise<string | false | null | undefined>((resolve) => {
        const files = new Tls(identity).identity;
        const socket = connectTls({ ...files, port, host: '127.0.0.1', ...(ALPNProtocols && { ALPNProtocols }) });
        closing.push(() => void socket.destroy());
        socket.on('error', () => resolve(undefined)).on('close', () => resolve(undefined));
        // The server sends its settings once it has accepted the connection.
        socket.on('data', () => resolve(socket.alpnProtocol));
      });
    return { authority, own, call };
  }

  test('chooses HTTP/2, and rejects clients that offer only other protocols', async () => {
    const { own, call } = await openTls();
    expect(await call(own, ['h2'])).toBe('h2');
    expect(await call(own, ['http/1.1', 'h2'])).toBe('h2');
    expect(await call(own, ['http/1.1'])).toBeUndefined();
    expect(await call(own)).toBe(false);
  });

  test('admits clients by a DNS name or an organizational unit, and with its own certificate', async () => {
    const refused: string[] = [];
    const onRefusal = (subject: string) => refused.push(subject);
    const { authority, own, call } = await openTls({ clients: ['gateway', 'operators'], onRefusal });
    expect(await call(authority.issue('gateway.ptp', 'gateway'), ['h2'])).toBe('h2');
    expect(await call(authority.issueFor('/CN=someone/OU=operators', []), ['h2'])).toBe('h2');
    expect(await call(own, ['h2'])).toBe('h2');
    const drafter = authority.issueFor('/CN=gateway', ['drafter', '*']);
    for (const each of [drafter, drafter]) expect(await call(each, ['h2'])).toBeUndefined();
    expect(refused).toEqual(['CN=gateway']);
  });

  test('refuses a client whose certificate has an empty subject, and continues to admit others', async () => {
    const refused: string[] = [];
    const { authority, call } = await openTls({ clients: ['gateway'], onRefusal: (subject) => refused.push(subject) });
    expect(await call(authority.issueFor('/', ['drafter']), ['h2'])).toBeUndefined();
    expect(await call(authority.issueFor('/', ['gateway']), ['h2'])).toBe('h2');
    expect(refused).toEqual(['IP Address:127.0.0.1, DNS:drafter']);
  });

  test('admits all clients without a file of authorities, which turns mutual TLS off', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'ptp-door-'));
    closing.push(() => rmSync(folder, { recursive: true }));
    const { cert, key } = new Authority(folder).issue('verifier');
    const port = await open({ tls: new Tls({ cert, key }, { clients: ['gateway'] }) });
    const socket = connectTls({ port, host: '127.0.0.1', ALPNProtocols: ['h2'], rejectUnauthorized: false });
    closing.push(() => void socket.destroy());
    await once(socket, 'data');
    expect(socket.alpnProtocol).toBe('h2');
  });
});

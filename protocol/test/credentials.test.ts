import { execFile, spawnSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { readdirSync } from 'node:fs';
import { copyFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect as tlsConnect } from 'node:tls';
import { promisify } from 'node:util';
import { settings } from '@ptp/service-kit/settings';
import { loadTls, tlsSettings } from '@ptp/service-kit/tls-settings';
import { pino } from 'pino';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { connect } from '../src/client.ts';
import { Tls } from '../src/credentials.ts';
import { VerifierService } from '../src/gen/ptp/v1/verifier_pb.ts';
import { checkHealth } from '../src/health.ts';
import { implement, serve } from '../src/server.ts';

const hasOpenssl = spawnSync('openssl', ['version']).status === 0;
let folder: string;
const file = (name: string) => join(folder, name);

function openssl(...args: string[]): void {
  const { status, stderr } = spawnSync('openssl', args);
  if (status !== 0) throw new Error(stderr.toString());
}

/** Creates a certificate authority, or a certificate for 127.0.0.1 that an authority signs. */
function certificate(name: string, authority?: string): void {
  const subject = [
    '-subj',
    `/CN=${name}`,
    '-days',
    '2',
    '-nodes',
    '-newkey',
    'ec',
    '-pkeyopt',
    'ec_paramgen_curve:P-256',
  ];
  const files = ['-keyout', file(`${name}.key`), '-out', file(`${name}.crt`)];
  const signed = authority
    ? [
        '-CA',
        file(`${authority}.crt`),
        '-CAkey',
        file(`${authority}.key`),
        '-addext',
        'subjectAltName=IP:127.0.0.1',
        '-addext',
        'basicConstraints=critical,CA:FALSE',
      ]
    : [];
  openssl('req', '-x509', ...subject, ...files, ...signed);
}
const tls = (name: string, ca = 'ca') =>
  new Tls({ cert: file(`${name}.crt`), key: file(`${name}.key`), ca: file(`${ca}.crt`) }, { refreshMs: 100 });

/**
 * Resets 200 connections, one after another, as soon as their handshake has ended, as load balancers' health checks do.
 */
const RESETS = `
const { readFileSync } = require('node:fs');
const [cert, key] = process.argv.slice(1, 3).map((file) => readFileSync(file));
const options = { cert, key, port: Number(process.argv[3]), ALPNProtocols: ['h2'], rejectUnauthorized: false };
let left = 200;
const next = () => {
  if (left-- === 0) return;
  const raw = require('node:net').connect(options.port, '127.0.0.1');
  const socket = require('node:tls').connect({ ...options, socket: raw }, () => setImmediate(() => raw.resetAndDestroy()));
  socket.on('error', () => {});
  raw.on('close', next);
};
next();
`;

describe.skipIf(!hasOpenssl)('mutual TLS between services', () => {
  let server: Awaited<ReturnType<typeof serve>>;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'ptp-tls-'));
    certificate('ca');
    certificate('other-ca');
    for (const name of ['verifier', 'gateway', 'renewed']) certificate(name, 'ca');
    certificate('stranger', 'other-ca');
    for (const end of ['crt', 'key']) await copyFile(file(`verifier.${end}`), file(`served.${end}`));
    server = await serve({
      address: '127.0.0.1:0',
      logger: pino({ level: 'silent' }),
      services: [implement(VerifierService, { getTarget: () => ({ openSequences: 7 }), async *verify() {} })],
      tls: tls('served'),
    });
  });
  afterAll(async () => {
    await server.close(0);
    await rm(folder, { recursive: true, force: true });
  });

  /** @param waits true to wait for a connection: a server drops connections until it has read its certificate */
  async function ask(options: Tls | undefined, waits = false): Promise<unknown> {
    const client = connect(VerifierService, server.address, { tls: options, apart: true });
    try {
      if (waits) await client.waitForReady(5000);
      return await client.getTarget({}, { deadlineMs: 2000 });
    } finally {
      client.close();
    }
  }
  const refused = { code: expect.stringMatching(/unavailable|deadline_exceeded/) };

  test('accepts clients with a certificate of the authority, and answers health checks', async () => {
    expect(await ask(tls('gateway'), true)).toMatchObject({ openSequences: 7 });
    expect(await checkHealth(server.address, VerifierService, { deadlineMs: 2000 }, tls('gateway'))).toBe('SERVING');
  });

  test('rejects other clients, and is rejected by clients that trust another authority', async () => {
    await expect(ask(undefined)).rejects.toMatchObject(refused);
    await expect(ask(tls('stranger'))).rejects.toMatchObject(refused);
    await expect(ask(tls('gateway', 'other-ca'))).rejects.toMatchObject(refused);
  });

  test('presents a renewed certificate without a restart', async () => {
    const [host = '', port = ''] = server.address.split(':');
    const shown = () =>
      new Promise<string>((resolve, reject) => {
        const socket = tlsConnect({ host, port: Number(port), rejectUnauthorized: false }, () => {
          resolve(String(socket.getPeerCertificate().subject?.CN));
          socket.destroy();
        });
        socket.on('error', reject);
      });
    expect(await shown()).toBe('verifier');
    for (const end of ['crt', 'key']) await copyFile(file(`renewed.${end}`), file(`served.${end}`));
    await expect.poll(shown, { timeout: 5000 }).toBe('renewed');
    expect(await ask(tls('gateway'), true)).toMatchObject({ openSequences: 7 });
  });

  test('keeps the last good pair while a renewal is half done, and says so once', async () => {
    const half = { cert: file('half.crt'), key: file('half.key'), ca: file('ca.crt') };
    for (const end of ['crt', 'key']) await copyFile(file(`verifier.${end}`), file(`half.${end}`));
    const errors: Error[] = [];
    const onError = (error: Error) => errors.push(error);
    const renewing = new Tls(half, { refreshMs: 60_000, onError, clients: ['nobody'] });
    const certificates = await Promise.all(['verifier.crt', 'gateway.crt'].map((name) => readFile(file(name))));
    // Apart from the clients in the list, only the server's own certificate is admitted.
    const admitted = () => certificates.map((pem) => renewing.admits(new X509Certificate(pem)));
    const before = renewing.identity;
    await copyFile(file('gateway.crt'), half.cert);
    renewing.reload();
    renewing.reload();
    expect(renewing.identity).toBe(before);
    expect(admitted()).toEqual([true, false]);
    expect(errors.map(({ message }) => message)).toEqual([expect.stringContaining(half.key)]);
    await copyFile(file('gateway.key'), half.key);
    renewing.reload();
    expect(renewing.identity).not.toEqual(before);
    expect(admitted()).toEqual([false, true]);
    expect(() => new Tls({ cert: file('gateway.crt'), key: file('verifier.key') })).toThrow(/cannot be used together/);
  });

  test('a renewed file of authorities must contain certificates', async () => {
    const ca = file('renewed-ca.crt');
    await copyFile(file('ca.crt'), ca);
    const files = { cert: file('gateway.crt'), key: file('gateway.key'), ca };
    const errors: string[] = [];
    const renewing = new Tls(files, { refreshMs: 60_000, onError: ({ message }) => errors.push(message) });
    const { identity } = renewing;
    const good = await readFile(ca, 'utf8');
    for (const damaged of ['', 'garbage', good.slice(0, 200), `${good}${good.slice(0, 200)}`]) {
      await writeFile(ca, damaged);
      renewing.reload();
      expect(renewing.identity).toBe(identity);
      expect(errors.splice(0)).toEqual([`the file of authorities ${ca} must contain PEM certificates`]);
      await writeFile(ca, good);
      renewing.reload();
    }
    await rm(ca);
    renewing.reload();
    expect(errors).toEqual([expect.stringMatching(/^cannot read .*renewed-ca\.crt: ENOENT/)]);
    await writeFile(ca, `${good}${await readFile(file('other-ca.crt'), 'utf8')}`);
    renewing.reload();
    expect(renewing.identity).not.toBe(identity);
  });

  // Other systems have no list of the open files of a process.
  test.skipIf(process.platform !== 'linux')('connections that are reset after their handshake are closed', async () => {
    // A second process, because the reset must arrive in the event-loop turn in which the handshake ends.
    const [cert, key, port] = [file('gateway.crt'), file('gateway.key'), server.address.split(':')[1] ?? ''];
    const sockets = () => readdirSync('/proc/self/fd').length;
    const before = sockets();
    await promisify(execFile)(process.execPath, ['-e', RESETS, cert, key, port]);
    await expect.poll(sockets, { timeout: 5000 }).toBeLessThan(before + 5);
    expect(await ask(tls('gateway'), true)).toMatchObject({ openSequences: 7 });
  });

  test('an error names the setting whose file is missing or damaged', async () => {
    const config = settings(tlsSettings, { PTP_TLS_CERT_FILE: file('gateway.crt'), PTP_TLS_KEY_FILE: file('no.key') });
    await expect(loadTls(config)).rejects.toMatchObject({ field: 'PTP_TLS_KEY_FILE', code: 'failed_precondition' });
    expect(await loadTls(settings(tlsSettings, {}))).toBeUndefined();
    await writeFile(file('empty.crt'), '');
    const damaged = (key: string, ca: string) =>
      loadTls(
        settings(tlsSettings, {
          PTP_TLS_CERT_FILE: file('gateway.crt'),
          PTP_TLS_KEY_FILE: file(key),
          PTP_TLS_CA_FILE: file(ca),
        }),
      );
    await expect(damaged('gateway.key', 'empty.crt')).rejects.toThrow(
      `${file('empty.crt')} (PTP_TLS_CA_FILE) must contain PEM certificates`,
    );
    await expect(damaged('verifier.key', 'ca.crt')).rejects.toThrow(
      /\(PTP_TLS_CERT_FILE\) .* \(PTP_TLS_KEY_FILE\) cannot be used together/,
    );
  });
});

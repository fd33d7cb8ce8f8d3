import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { settings } from '@ptp/service-kit/settings';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { gatewaySettings } from '../gateway/src/settings.ts';
import { environment } from '../scripts/start-options.ts';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'ptp-config-'));
});
afterAll(() => rm(folder, { recursive: true }));

/** Writes a file and returns what `npm start` reads from it. */
async function read(text: string, args: string[] = [], env: NodeJS.ProcessEnv = {}) {
  await writeFile(join(folder, 'ptp.yaml'), text);
  return environment(['--config', 'ptp.yaml', ...args], { INIT_CWD: folder, ...env });
}

describe('the configuration file', () => {
  test('sets flags', async () => {
    const text = 'max-streams: 12\nverifiers: [a:1, "b:2"]\nmodel: org/name\ntls-ca-file: ca.pem\ntensor-parallel: 2\n';
    const { env, flags } = await read(text);
    expect(env).toMatchObject({
      PTP_MAX_STREAMS: '12',
      PTP_VERIFIERS: 'a:1,b:2',
      PTP_MODEL: 'org/name',
      PTP_TLS_CA_FILE: join(folder, 'ca.pem'),
    });
    expect(flags).toEqual({ engine: '', drafter: '', tensorParallel: 2 });
  });

  test('has paths that are relative to it', async () => {
    await writeFile(join(folder, 'x.pt'), '');
    await writeFile(join(folder, 'ptp.yaml'), 'drafter: x.pt\nmodel: x.pt\n');
    const { env, flags } = environment(['--config', join(folder, 'ptp.yaml')], { INIT_CWD: '/' });
    expect([env.PTP_MODEL, flags.drafter]).toEqual([join(folder, 'x.pt'), join(folder, 'x.pt')]);
  });

  test('is overridden by the environment, and both by the command line', async () => {
    const text = 'max-streams: 1\nport: 1000\nlog-level: error\n';
    const both = { PTP_MAX_STREAMS: '2', PTP_LISTEN: 'localhost:2000' };
    expect((await read(text, [], both)).env).toMatchObject({ ...both, PTP_LOG_LEVEL: 'error' });
    const { env } = await read(text, ['--max-streams', '3', '--port', '3000'], both);
    expect(env).toMatchObject({
      PTP_MAX_STREAMS: '3',
      PTP_LISTEN: 'localhost:3000',
      PTP_GRPC_LISTEN: expect.stringMatching(/:3001$/),
    });
  });

  test.each<[string[], NodeJS.ProcessEnv, string, string]>([
    [[], {}, '127.0.0.1:8000', '127.0.0.1:8001'],
    [['--listen', '0.0.0.0:9000'], {}, '0.0.0.0:9000', '127.0.0.1:8001'],
    [['--grpc-listen', '0.0.0.0:9001'], {}, '127.0.0.1:8000', '0.0.0.0:9001'],
    [[], { PTP_GRPC_LISTEN: '0.0.0.0:9001' }, '127.0.0.1:8000', '0.0.0.0:9001'],
    [['--port', '7000'], { PTP_GRPC_LISTEN: '0.0.0.0:9001' }, '127.0.0.1:7000', '0.0.0.0:7001'],
  ])('has a port that %j and %j override', async (args, given, listen, grpcListen) => {
    const { env } = await read('port: 8000\n', args, given);
    const { listen: http, grpcListen: grpc } = settings(gatewaySettings, env);
    expect([http.target, grpc.target]).toEqual([listen, grpcListen]);
  });

  test('has a port that replaces the port of the address', async () => {
    const { env } = await read('port: 8000\nlisten: 0.0.0.0:9000\n');
    expect(env).toMatchObject({ PTP_LISTEN: '0.0.0.0:8000', PTP_GRPC_LISTEN: '127.0.0.1:8001' });
  });

  test('may leave a path empty', async () => {
    expect((await read('api-keys-file:\ntls-cert-file: ""\n')).env).toMatchObject({
      PTP_API_KEYS_FILE: '',
      PTP_TLS_CERT_FILE: '',
    });
  });

  test('may be empty', async () => {
    for (const text of ['', '# nothing\n']) {
      expect((await read(text)).flags).toEqual({ engine: '', drafter: '', tensorParallel: 1 });
    }
  });

  test.each([
    ['max-stream: 3', 'ptp.yaml: `max-stream` is not a flag of npm start; see npm start -- --help-all'],
    ['config: other.yaml', 'ptp.yaml: `config` is not a flag of npm start'],
    ['help: true', 'ptp.yaml: `help` is not a flag of npm start'],
    ['model: {a: 1}', 'ptp.yaml: `model` must be a string, a number or a list of them, got an object'],
    ['- model', 'ptp.yaml must have lines "flag: value"'],
    ['model', 'ptp.yaml must have lines "flag: value"'],
    ['port: 1\nport: 2', 'ptp.yaml: Map keys must be unique at line 2, column 1'],
    ['tensor-parallel: x', '--tensor-parallel must be an integer in [1, 64], got "x"'],
  ])('is rejected with one line: %j', async (text, message) => {
    await expect(read(text)).rejects.toThrow(message);
  });

  test('must exist', () => {
    expect(() => environment(['--config', 'no.yaml'], { INIT_CWD: folder })).toThrow(
      `cannot read --config ${join(folder, 'no.yaml')}: ENOENT`,
    );
  });
});

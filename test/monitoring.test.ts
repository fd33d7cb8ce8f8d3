import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Member } from '../bench/chaos/fleet.ts';
import { freePort } from '../bench/chaos/free-port.ts';
import { dashboards, files } from '../scripts/dashboards.ts';

const ROOT = join(import.meta.dirname, '..');
const has = (program: string) => spawnSync(program, ['--version']).status === 0;
const tools = has('promtool') && has('prometheus');

test('the dashboards are what `npm run dashboards` writes', async () => {
  for (const { path, text } of files) expect(await readFile(path, 'utf8')).toBe(text);
});

describe.skipIf(!tools)('rules (skipped without promtool)', () => {
  const rules = join(ROOT, 'deploy', 'prometheus');
  test('are valid, and alert when they should', () => {
    execFileSync('promtool', ['check', 'rules', 'rules.yaml', 'alerts.yaml'], { cwd: rules });
    execFileSync('promtool', ['test', 'rules', 'alerts_test.yaml'], { cwd: rules });
  });
});

describe.skipIf(!tools)(
  'dashboards over a Prometheus that scrapes the services under load (skipped without it)',
  () => {
    let folder: string;
    let prometheus: ReturnType<typeof spawn>;
    let members: Member[];
    let api: string;
    beforeAll(async () => {
      folder = await mkdtemp(join(tmpdir(), 'ptp-prometheus-'));
      const port = async () => (await freePort()).toString();
      const ports = { verifier: await port(), drafter: await port(), http: await port(), grpc: await port() };
      const metrics = { verifier: await port(), drafter: await port() };
      const env = {
        PTP_MODELS: join(ROOT, 'test/models/tiny'),
        PTP_VERIFIER_ADDRESS: `127.0.0.1:${ports.verifier}`,
        PTP_DRAFTER_ADDRESS: `127.0.0.1:${ports.drafter}`,
        PTP_HTTP_ADDRESS: `127.0.0.1:${ports.http}`,
        PTP_GRPC_ADDRESS: `127.0.0.1:${ports.grpc}`,
      };
      members = [
        new Member('verifier', { ...env, PTP_METRICS_ADDRESS: `127.0.0.1:${metrics.verifier}` }),
        new Member('drafter', { ...env, PTP_METRICS_ADDRESS: `127.0.0.1:${metrics.drafter}` }),
        new Member('gateway', env),
      ];
      for (const member of members) member.start();
      const target = (job: string, at: string) =>
        `  - { job_name: ${job}, static_configs: [{ targets: ["127.0.0.1:${at}"] }] }\n`;
      const config = `global: { scrape_interval: 1s }\nscrape_configs:\n${target('gateway', ports.http)}${target('verifier', metrics.verifier)}${target('drafter', metrics.drafter)}`;
      await writeFile(join(folder, 'prometheus.yml'), config);
      const listen = `127.0.0.1:${await port()}`;
      api = `http://${listen}`;
      prometheus = spawn(
        'prometheus',
        [
          `--config.file=${folder}/prometheus.yml`,
          `--storage.tsdb.path=${folder}/data`,
          `--web.listen-address=${listen}`,
        ],
        { stdio: 'ignore' },
      );
      const url = `http://127.0.0.1:${ports.http}`;
      while ((await fetch(`${url}/readyz`).catch(() => undefined))?.status !== 200) await sleep(100);
      // load, of all kinds of steps, for long enough that rates have something to go by
      const until = performance.now() + 9000;
      const modes = ['overlap', 'sequential', 'plain'];
      for (let seed = 0; performance.now() < until; seed++) {
        await Promise.all(
          modes.map((draft_mode) =>
            fetch(`${url}/v1/completions`, {
              method: 'POST',
              headers: { 'content-type': 'application/json' },
              body: JSON.stringify({ prompt: 'def read(', max_tokens: 40, seed, ptp: { draft_mode } }),
            }).then((response) => response.text()),
          ),
        );
      }
      await sleep(1500);
    }, 90_000);
    afterAll(async () => {
      const ended = once(prometheus, 'exit');
      prometheus.kill('SIGTERM');
      await ended;
      for (const member of members) await member.end('SIGTERM');
      await rm(folder, { recursive: true, force: true });
    });

    const queries = Object.values(dashboards).flatMap(({ panels }) =>
      panels.flatMap(({ title, queries: own }) =>
        Object.entries(own).map(([legend, expr]) => ({ title, legend, expr })),
      ),
    );
    test.each(queries)('$title: $legend', async ({ expr }) => {
      const query = expr.replaceAll('$__rate_interval', '8s');
      const response = await fetch(`${api}/api/v1/query?${new URLSearchParams({ query })}`);
      const { status, data, error } = (await response.json()) as {
        status: string;
        data?: { result: { value: [number, string] }[] };
        error?: string;
      };
      expect([status, error]).toEqual(['success', undefined]);
      const values = (data?.result ?? []).map(({ value }) => Number(value[1])).filter((value) => !Number.isNaN(value));
      expect(values.length).toBeGreaterThan(0);
    });
  },
);

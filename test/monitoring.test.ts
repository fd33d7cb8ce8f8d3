import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { freePort } from '../bench/chaos/free-port.ts';
import { Member } from '../bench/chaos/member.ts';

const ROOT = join(import.meta.dirname, '..');
const has = (program: string) => spawnSync(program, ['--version']).status === 0;
const tools = has('promtool') && has('prometheus');

/** A series in the result of `query_exemplars`. */
interface Series {
  readonly seriesLabels: { readonly le?: string };
  readonly exemplars: readonly {
    readonly labels: { readonly trace_id: string; readonly span_id: string };
    readonly value: string;
  }[];
}

/** Fields of a Grafana panel that the tests read. */
interface Panel {
  readonly title: string;
  readonly targets: readonly { readonly expr: string; readonly legendFormat: string; readonly exemplar?: boolean }[];
}

const DASHBOARDS = join(ROOT, 'deploy/grafana/dashboards');
const dashboards: { readonly uid: string; readonly panels: readonly Panel[] }[] = await Promise.all(
  (await readdir(DASHBOARDS)).map(async (name) => JSON.parse(await readFile(join(DASHBOARDS, name), 'utf8'))),
);
const panels = dashboards.flatMap((dashboard) => dashboard.panels);

test('each dashboard has a unique id, and panels with queries', () => {
  expect(new Set(dashboards.map(({ uid }) => uid)).size).toBe(3);
  expect(panels.filter(({ targets }) => targets.length === 0)).toEqual([]);
  expect(panels.length).toBeGreaterThan(10);
});

test('Grafana links exemplars to a configured data source', async () => {
  const file = join(ROOT, 'deploy', 'grafana', 'provisioning', 'datasources', 'prometheus.yaml');
  const { datasources } = parse(await readFile(file, 'utf8'));
  const [prometheus, jaeger] = datasources;
  expect(prometheus.jsonData.exemplarTraceIdDestinations).toEqual([{ name: 'trace_id', datasourceUid: jaeger.uid }]);
});

describe.skipIf(!tools)('rules (skipped without promtool)', () => {
  const rules = join(ROOT, 'deploy', 'prometheus');
  test('are valid and fire as tested', () => {
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
    let collector: Server;
    /** Request bodies received by the collector. In protobuf, ids are plain bytes. */
    let spans = Buffer.alloc(0);
    beforeAll(async () => {
      collector = createServer(async (request, response) => {
        for await (const chunk of request) spans = Buffer.concat([spans, chunk as Buffer]);
        response.end();
      }).listen(0, '127.0.0.1');
      await once(collector, 'listening');
      folder = await mkdtemp(join(tmpdir(), 'ptp-prometheus-'));
      const port = async () => (await freePort()).toString();
      const ports = { verifier: await port(), drafter: await port(), http: await port(), grpc: await port() };
      const metrics = { verifier: await port(), drafter: await port() };
      const env = {
        PTP_MODEL: join(ROOT, 'test/models/tiny'),
        OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${(collector.address() as AddressInfo).port}`,
        OTEL_TRACES_SAMPLER: 'always_on',
        OTEL_BSP_SCHEDULE_DELAY: '200',
      };
      members = [
        new Member({
          kind: 'verifier',
          env: {
            ...env,
            PTP_LISTEN: `127.0.0.1:${ports.verifier}`,
            PTP_METRICS_LISTEN: `127.0.0.1:${metrics.verifier}`,
          },
        }),
        new Member({
          kind: 'drafter',
          env: {
            ...env,
            PTP_LISTEN: `127.0.0.1:${ports.drafter}`,
            PTP_METRICS_LISTEN: `127.0.0.1:${metrics.drafter}`,
          },
        }),
        new Member({
          kind: 'gateway',
          env: {
            ...env,
            PTP_LISTEN: `127.0.0.1:${ports.http}`,
            PTP_GRPC_LISTEN: `127.0.0.1:${ports.grpc}`,
            PTP_VERIFIERS: `127.0.0.1:${ports.verifier}`,
            PTP_DRAFTERS: `127.0.0.1:${ports.drafter}`,
          },
        }),
      ];
      for (const member of members) member.start();
      const target = (job: string, at: string) =>
        `  - { job_name: ${job}, static_configs: [{ targets: ["127.0.0.1:${at}"] }] }\n`;
      const config = `global: { scrape_interval: 1s }\nscrape_configs:\n${target('gateway', ports.http)}${target('verifier', metrics.verifier)}${target('drafter', metrics.drafter)}`;
      await writeFile(join(folder, 'prometheus.yml'), config);
      const listen = `127.0.0.1:${await port()}`;
      api = `http://${listen}`;
      const compose = parse(await readFile(join(ROOT, 'deploy', 'compose.observability.yaml'), 'utf8'), {
        merge: true,
      });
      const features = compose.services.prometheus.command.filter((option: string) => option.startsWith('--enable'));
      prometheus = spawn(
        'prometheus',
        [
          ...features,
          `--config.file=${folder}/prometheus.yml`,
          `--storage.tsdb.path=${folder}/data`,
          `--web.listen-address=${listen}`,
        ],
        { stdio: 'ignore' },
      );
      const url = `http://127.0.0.1:${ports.http}`;
      while ((await fetch(`${url}/readyz`).catch(() => undefined))?.status !== 200) await sleep(100);
      // The load covers all kinds of steps, and lasts long enough for rates.
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
      for (const member of members) await member.end('SIGTERM');
      const ended = once(prometheus, 'exit');
      prometheus.kill('SIGTERM');
      await ended;
      collector.close();
      await rm(folder, { recursive: true, force: true });
    });

    /** The result of a Prometheus query. */
    async function ask<Data>(path: string, parameters: Record<string, string>): Promise<Data> {
      const query = parameters.query?.replaceAll('$__rate_interval', '8s');
      const search = new URLSearchParams({ ...parameters, ...(query && { query }) });
      const answer = (await (await fetch(`${api}/api/v1/${path}?${search}`)).json()) as {
        status: string;
        data: Data;
        error?: string;
      };
      expect([answer.status, answer.error]).toEqual(['success', undefined]);
      return answer.data;
    }

    const queries = panels.flatMap(({ title, targets }) =>
      targets.map(({ expr, legendFormat: legend }) => ({ title, legend, expr })),
    );
    test.each(queries)('$title: $legend', async ({ expr: query }) => {
      const { result } = await ask<{ result: { value: [number, string] }[] }>('query', { query });
      const values = result.map(({ value }) => Number(value[1])).filter((value) => !Number.isNaN(value));
      expect(values.length).toBeGreaterThan(0);
    });

    const leading = panels.filter(({ targets }) => targets.at(-1)?.exemplar);
    test.each(leading)(
      '$title: exemplars are in their buckets and name exported spans',
      async ({ targets }) => {
        const now = Date.now() / 1000;
        const period = { start: String(now - 120), end: String(now + 1) };
        const found = await ask<Series[]>('query_exemplars', { query: targets.at(-1)?.expr ?? '', ...period });
        const all = found.flatMap(({ seriesLabels, exemplars }) =>
          exemplars.map((each) => ({ ...each, seriesLabels })),
        );
        expect(all.length).toBeGreaterThan(0);
        const sent = (id: string) => spans.includes(Buffer.from(id, 'hex'));
        for (const { labels, value, seriesLabels } of all) {
          expect(Number(value)).toBeLessThanOrEqual(Number(seriesLabels.le?.replace('+Inf', 'Infinity')));
          await expect
            .poll(() => [sent(labels.trace_id), sent(labels.span_id)], { timeout: 20_000 })
            .toEqual([true, true]);
        }
      },
      30_000,
    );

    test('metadata comes from OpenMetrics', async () => {
      const known = await ask<Record<string, { type: string; unit: string; help: string }[]>>('metadata', {});
      const help = 'Number of steps by mode and reason for the mode. The reason "no drafter" means a fallback.';
      expect(known.ptp_steps).toEqual([{ type: 'counter', unit: '', help }]);
      expect(known.ptp_engine_run_duration_seconds).toMatchObject([{ type: 'histogram', unit: 'seconds' }]);
    });
  },
);

/** `npm run dashboards`: writes deploy/grafana/dashboards/*.json from the panels below. */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

const OUT = join(import.meta.dirname, '..', 'deploy', 'grafana', 'dashboards');

/** What a panel shows: a title, a unit of Grafana's, and queries by legend. */
interface Panel {
  readonly title: string;
  readonly unit: string;
  readonly queries: Readonly<Record<string, string>>;
  readonly description?: string;
  /** Whether points on it lead to traces: those of its last query. */
  readonly exemplars?: boolean;
}

const quantiles = (metric: string, by = ''): Record<string, string> =>
  Object.fromEntries(
    [0.5, 0.95, 0.99].map((q) => [
      `p${q * 100}${by && ` {{${by}}}`}`,
      `histogram_quantile(${q}, sum by (le${by && `, ${by}`}) (rate(${metric}_bucket[$__rate_interval])))`,
    ]),
  );
const rate = (metric: string, by = '') => `sum${by && ` by (${by})`} (rate(${metric}[$__rate_interval]))`;

export const dashboards: Readonly<Record<string, { readonly title: string; readonly panels: readonly Panel[] }>> = {
  latency: {
    title: 'ptp-server: latency',
    panels: [
      {
        title: 'Time to first token',
        unit: 's',
        queries: quantiles('gen_ai_server_time_to_first_token_seconds'),
        exemplars: true,
      },
      {
        title: 'Time per output token',
        unit: 's',
        queries: quantiles('gen_ai_server_time_per_output_token_seconds'),
        exemplars: true,
      },
      {
        title: 'Whole sequences',
        unit: 's',
        queries: quantiles('gen_ai_server_request_duration_seconds'),
        exemplars: true,
      },
      { title: 'Steps, by mode', unit: 's', queries: quantiles('ptp_step_duration_seconds', 'mode'), exemplars: true },
      { title: 'Verify calls', unit: 's', queries: quantiles('ptp_step_verify_duration_seconds'), exemplars: true },
      {
        title: 'Draft calls, beside a verify call or before it',
        unit: 's',
        queries: quantiles('ptp_step_draft_duration_seconds', 'beside'),
        exemplars: true,
      },
      {
        title: 'Sequences by outcome',
        unit: 'reqps',
        queries: { '{{error_type}}': rate('gen_ai_server_request_duration_seconds_count', 'error_type') },
      },
    ],
  },
  acceptance: {
    title: 'ptp-server: drafting',
    panels: [
      {
        title: 'Tokens per step',
        unit: 'none',
        queries: { tokens: `${rate('ptp_tokens_output_total')} / ${rate('ptp_steps_total')}` },
      },
      {
        title: 'Share of proposed tokens that were right, by source',
        unit: 'percentunit',
        queries: {
          '{{source}}': `${rate('ptp_tokens_proposed_total{accepted="true"}', 'source')} / ${rate('ptp_tokens_proposed_total', 'source')}`,
        },
      },
      {
        title: 'By position in their block',
        unit: 'percentunit',
        queries: {
          '{{position}}': `${rate('ptp_tokens_proposed_total{accepted="true"}', 'position')} / ${rate('ptp_tokens_proposed_total', 'position')}`,
        },
      },
      { title: 'Accepted tokens of a step', unit: 'none', queries: quantiles('ptp_step_accepted') },
      {
        title: 'Overlap',
        unit: 'percentunit',
        description: "Share of the draft calls' time that ran beside a verify call",
        queries: {
          overlap: `${rate('ptp_step_overlap_seconds_total')} / ${rate('ptp_step_draft_duration_seconds_sum')}`,
        },
      },
      {
        title: 'Steps by mode and why',
        unit: 'ops',
        queries: { '{{mode}}: {{reason}}': rate('ptp_steps_total', 'mode, reason') },
      },
    ],
  },
  capacity: {
    title: 'ptp-server: capacity',
    panels: [
      { title: 'Tokens generated', unit: 'ops', queries: { tokens: rate('ptp_tokens_output_total') } },
      {
        title: 'Tokens of prompts; cached ones were not read',
        unit: 'ops',
        queries: { 'cached {{cached}}': rate('ptp_tokens_input_total', 'cached') },
      },
      {
        title: 'Sequences',
        unit: 'none',
        queries: { '{{instance}}': 'ptp_streams', 'open at {{instance}}': 'ptp_engine_sequences' },
      },
      {
        title: 'Waiting for a run',
        unit: 's',
        queries: quantiles('ptp_engine_queue_duration_seconds', 'job'),
        exemplars: true,
      },
      { title: 'Runs', unit: 's', queries: quantiles('ptp_engine_run_duration_seconds', 'job'), exemplars: true },
      {
        title: 'Sequences in a run',
        unit: 'none',
        queries: {
          '{{job}}': `${rate('ptp_engine_batch_size_sum', 'job')} / ${rate('ptp_engine_batch_size_count', 'job')}`,
        },
      },
      {
        title: 'Keys and values',
        unit: 'bytes',
        queries: { 'open, {{job}}': 'ptp_engine_cache_size_bytes', 'kept, {{job}}': 'ptp_prefix_cache_size_bytes' },
      },
      {
        title: 'Prompts of which a beginning was known',
        unit: 'percentunit',
        queries: {
          '{{job}}': `${rate('ptp_prefix_cache_lookups_total{hit="true"}', 'job')} / ${rate('ptp_prefix_cache_lookups_total', 'job')}`,
        },
      },
      { title: 'Services that can be used', unit: 'none', queries: { '{{peer}} of {{instance}}': 'ptp_peer_usable' } },
    ],
  },
};

function json(name: string, { title, panels }: (typeof dashboards)[string]): object {
  return {
    uid: `ptp-${name}`,
    title,
    tags: ['ptp-server'],
    timezone: 'browser',
    schemaVersion: 41,
    refresh: '10s',
    time: { from: 'now-30m', to: 'now' },
    panels: panels.map(({ title: heading, unit, queries, description, exemplars }, i) => ({
      id: i + 1,
      type: 'timeseries',
      title: heading,
      ...(description && { description }),
      datasource: { type: 'prometheus', uid: 'prometheus' },
      gridPos: { x: (i % 2) * 12, y: Math.floor(i / 2) * 8, w: 12, h: 8 },
      fieldConfig: { defaults: { unit, min: 0 }, overrides: [] },
      targets: Object.entries(queries).map(([legendFormat, expr], n, { length }) => ({
        refId: String.fromCharCode(65 + n),
        expr,
        legendFormat,
        ...(exemplars && n === length - 1 && { exemplar: true }),
      })),
    })),
  };
}

export const files = Object.entries(dashboards).map(([name, dashboard]) => ({
  path: join(OUT, `${name}.json`),
  text: `${JSON.stringify(json(name, dashboard), null, 2)}\n`,
}));

if (import.meta.main) {
  await mkdir(OUT, { recursive: true });
  for (const { path, text } of files) await writeFile(path, text);
}

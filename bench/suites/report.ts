import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { loadManifest } from '@ptp/protocol/manifest';
import { type Axis, lineChart, type Panel } from '../plot.ts';
import { loadResults, type Result } from '../results.ts';
import { suite } from '../suite.ts';

const DOCS = join(import.meta.dirname, '..', '..', 'docs');
const MODELS = join(import.meta.dirname, '..', '..', 'models', 'default');
/** Suites that run no model. */
const WITHOUT_PAIR = ['overhead', 'scaling'];

type Results = ReadonlyMap<string, Result>;
type Row = Readonly<Record<string, unknown>>;

interface Section {
  readonly text: string;
  readonly plot?: readonly Panel[];
}

const SECTIONS: readonly (readonly [name: string, section: (result: Result, all: Results) => Section])[] = [
  ['decode-auto', (_, all) => decode(all)],
  ['load', load],
  ['context', context],
  ['prefill', prefill],
  ['overhead', overhead],
  ['exact', exact],
  ['peers', peers],
];

export const report = suite(
  'report',
  'Write docs/performance.md and its plots from results kept with --save',
  [],
  async () => {
    const results = await loadResults();
    if (results.size === 0) throw new Error('bench/results is empty: run suites with --save first');
    const written: string[] = [];
    const write = async (name: string, content: string) => {
      await writeFile(join(DOCS, name), content);
      written.push(`docs/${name}`);
    };
    const { created } = await loadManifest(MODELS);
    const sections = [head(results, created)];
    for (const [name, section] of SECTIONS) {
      const result = results.get(name);
      if (!result) continue;
      const { text, plot } = section(result, results);
      if (plot) await write(`performance-${name}.svg`, await lineChart(plot, name));
      sections.push(plot ? `${text}\n\n![${name}](performance-${name}.svg)` : text);
    }
    await write('performance.md', `${sections.join('\n\n')}\n`);
    return { written };
  },
);

/** @param created of the embedded pair */
function head(results: Results, created: string): string {
  const shown = [...results].filter(
    ([name]) => name.startsWith('decode') || SECTIONS.some(([section]) => section === name),
  );
  return `# Performance

Latest measurements of the embedded pair. \`npm run bench -- SUITE --save\` keeps a result in [bench/results](../bench/results);
\`npm run bench -- report\` writes this page from them. Each engine has one thread on two shared cores.
Every comparison is interleaved within one run: the machine is shared, so trust ratios more than times.
[scaling.md](scaling.md) simulates larger machines.

${table(
  ['suite', 'measured', 'machine', ''],
  shown.map(([name, { date, pair, machine }]) => [
    name,
    date,
    machine.replace(/, .*/, ''),
    !WITHOUT_PAIR.includes(name) && pair !== created ? 'an earlier pair' : '',
  ]),
)}`;
}

/** A Markdown table. */
function table(titles: readonly string[], rows: readonly (readonly (string | number)[])[]): string {
  const line = (cells: readonly (string | number)[]) => `| ${cells.join(' | ')} |`;
  return [line(titles), line(titles.map(() => '---')), ...rows.map(line)].join('\n');
}

/** A figure by its path in a row: 'step_us_p50.plain'. */
function at(row: Row, path: string): number {
  return path.split('.').reduce<unknown>((value, key) => (value as Row | undefined)?.[key], row) as number;
}

const millis = (row: Row, path: string): string => (at(row, path) / 1000).toFixed(1);
const rowsOf = (result: Result): readonly Row[] => result.rows as readonly Row[];

/** @param lines the path of each line's figure by its name */
function panel(
  title: string,
  x: Axis & { readonly path: string },
  y: Axis,
  rows: readonly Row[],
  lines: object,
  scale = 1,
) {
  const series = Object.entries(lines).map(([name, path]) => ({
    name,
    points: rows.map((row): [number, number] => [at(row, x.path), at(row, path) * scale]),
  }));
  return { title, x, y, series };
}

function decode(all: Results): Section {
  const modes = [...all].filter(([name]) => name.startsWith('decode-')).map(([, result]) => result);
  const rows = modes.map((r) => [
    `${r.mode}`,
    at(r, 'tokens_per_call').toFixed(2),
    `**${at(r, 'speedup_vs_ar').toFixed(2)}**`,
    `${millis(r, 'micros_per_token.drafted')} / ${millis(r, 'micros_per_token.plain')}`,
    `${at(r, 'overlap_ratio') ?? '-'}`,
    `${millis(r, 'verify_run_us_p50.block')} / ${millis(r, 'verify_run_us_p50.plain')}`,
    Number.isFinite(at(r, 'draft_run_us_p50')) ? millis(r, 'draft_run_us_p50') : '-',
  ]);
  const titles = ['mode', 'tokens per call', 'speedup over plain decoding', 'ms per token, drafted / plain'];
  titles.push('step / max(draft, verify)', 'verify run, block / one token, ms', 'draft run, ms');
  return {
    text: `## One stream

\`npm run bench -- decode --mode MODE\`: held-out prompts at temperature 0.7, top-k 50 and top-p 0.9, with and without the drafter
in turn; medians. \`auto\` is the server's default.

${table(titles, rows)}

The modes that \`auto\` chose, as shares of the last ${WINDOW} steps: a warm-up, then ever rarer trials of the slower modes.`,
    plot: [modesPanel(`${all.get('decode-auto')?.mode_by_step ?? ''}`.slice(0, SHOWN))],
  };
}

/** Steps over which a share of modes is taken, and steps shown. */
const WINDOW = 40;
const SHOWN = 1200;

/** @param steps the first letter of each step's mode */
function modesPanel(steps: string): Panel {
  const ends = Array.from({ length: Math.floor(steps.length / (WINDOW / 4)) }, (_, i) => (i + 1) * (WINDOW / 4));
  const share = (letter: string, end: number) => {
    const last = steps.slice(Math.max(0, end - WINDOW), end);
    return [...last].filter((each) => each === letter).length / last.length;
  };
  return {
    title: 'Modes that the controller chose',
    x: { title: 'steps since the start' },
    y: { title: 'share' },
    series: ['overlap', 'sequential', 'plain'].map((name) => ({
      name,
      points: ends.map((end): [number, number] => [end, share(name[0] as string, end)]),
    })),
  };
}

function load(result: Result): Section {
  const rows = rowsOf(result);
  const x = { title: 'concurrent streams', scale: 'log', path: 'streams' } as const;
  const lines = (path: string) => ({ 'drafter on': `${path}.drafted`, 'drafter off': `${path}.plain` });
  return {
    text: `## Many streams

\`npm run bench -- load\`: throughput and time per token by the number of concurrent streams.

${table(
  ['streams', 'tokens/s, drafter on / off', 'ratio', 'ms per token, on / off'],
  rows.map((row) => [
    at(row, 'streams'),
    `${at(row, 'tokens_per_second.drafted')} / ${at(row, 'tokens_per_second.plain')}`,
    at(row, 'throughput_ratio'),
    `${at(row, 'ms_per_token_p50.drafted')} / ${at(row, 'ms_per_token_p50.plain')}`,
  ]),
)}`,
    plot: [
      panel('Throughput', x, { title: 'tokens/s' }, rows, lines('tokens_per_second')),
      panel('Time per token', x, { title: 'ms' }, rows, lines('ms_per_token_p50')),
    ],
  };
}

function context(result: Result): Section {
  const rows = rowsOf(result);
  const steps = { 'step, drafter off': 'step_us_p50.plain', 'step, drafter on': 'step_us_p50.drafted' };
  const runs = { 'verify run, one token': 'verify_run_us_p50.plain', 'verify run, block': 'verify_run_us_p50.block' };
  const x = { title: 'tokens of context', path: 'context' };
  return {
    text: `## Length of the context

\`npm run bench -- context\` on the same pair exported with \`--context 4352\`: time of a step.

${table(
  ['context', 'step, drafter on / off, ms', 'verify run, block / one token, ms'],
  rows.map((row) => [
    at(row, 'context'),
    `${millis(row, 'step_us_p50.drafted')} / ${millis(row, 'step_us_p50.plain')}`,
    `${millis(row, 'verify_run_us_p50.block')} / ${millis(row, 'verify_run_us_p50.plain')}`,
  ]),
)}`,
    plot: [panel('Time of a step', x, { title: 'ms' }, rows, { ...steps, ...runs }, 1e-3)],
  };
}

function prefill(result: Result): Section {
  const lines = { 'new prompt': 'first_token_us_p50.fresh', 'known to the prefix cache': 'first_token_us_p50.known' };
  const x = { title: 'tokens of prompt', path: 'prompt' };
  return {
    text: `## Time to the first token

\`npm run bench -- prefill\`: without the drafter, for new prompts and for prompts in the prefix cache.`,
    plot: [panel('Time to the first token', x, { title: 'ms' }, rowsOf(result), lines, 1e-3)],
  };
}

function overhead(result: Result): Section {
  return {
    text: `## Overhead of a step

\`npm run bench -- overhead\`: engines that only wait, in three warm processes; time of a step beyond the longer of draft and verify.
A drafter that plans branches never lets a step be sent ahead; one that checks blocks does when its draft arrives before the verdict.

${table(
  ['draft, ms', 'verify, ms', 'drafter', 'steps sent ahead', 'overhead p10 / p50 / p90, ms'],
  rowsOf(result).map((row) => [
    at(row, 'draft_ms'),
    at(row, 'verify_ms'),
    row.checks ? 'checks blocks' : 'plans branches',
    `${Math.round(100 * at(row, 'sent_ahead'))} %`,
    ['p10', 'p50', 'p90'].map((q) => (at(row, `overhead_us.${q}`) / 1000).toFixed(2)).join(' / '),
  ]),
)}`,
  };
}

function exact(result: Result): Section {
  const count = (path: string) => at(result, path).toLocaleString('en');
  return {
    text: `## Exactness

\`npm run bench -- exact\`: ${count('tokens')} tokens compared with plain decoding, one and eight sequences at a time, at temperatures 0,
0.7 and 1, with batches, prefix cache and controller: **${count('mismatches')} mismatches**, with ${count('accepted')} drafted tokens accepted.`,
  };
}

function peers(result: Result): Section {
  const keys = ['engine', 'greedy', 'sampled', 'first_token_ms', 'agrees'];
  return {
    text: `## Other engines

\`npm run bench -- peers\`: the same weights in float32, one thread per engine, prompt by prompt in turn; medians.

${table(
  ['engine', 'tokens/s greedy', 'tokens/s at 0.7', 'first token, ms', 'greedy text as ours'],
  rowsOf(result).map((row) => keys.map((key) => `${row[key] ?? '-'}`)),
)}`,
  };
}

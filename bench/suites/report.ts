import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { loadManifest } from '@ptp/protocol/manifest';
import { type Axis, lineChart, type Panel } from '../plot.ts';
import { loadResults, type Result } from '../results.ts';
import { suite } from '../suite.ts';

const DOCS = join(import.meta.dirname, '..', '..', 'docs');
const MODELS = join(import.meta.dirname, '..', '..', 'models', 'default');
/** Suites that do not run a model. */
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
  'Update the tables and plots of docs/results.md from the results kept with --save',
  [],
  async () => {
    const results = await loadResults();
    const { created } = await loadManifest(MODELS);
    let page = await readFile(join(DOCS, 'results.md'), 'utf8');
    const written = ['docs/results.md'];
    for (const [name, section] of SECTIONS) {
      const result = results.get(name);
      if (!result) continue;
      const { text, plot } = section(result, results);
      page = withBlock(page, name, `${text}\n\n${conditions(name, result, created)}`);
      if (!plot) continue;
      await writeFile(join(DOCS, `performance-${name}.svg`), await lineChart(plot, name));
      written.push(`docs/performance-${name}.svg`);
    }
    await writeFile(join(DOCS, 'results.md'), page);
    return { written };
  },
);

/** Replaces the text between the markers of one suite. */
function withBlock(page: string, name: string, content: string): string {
  const [begin, end] = [`<!-- measured: ${name} -->`, '<!-- end -->'];
  const [before, rest] = page.split(begin);
  const [, ...after] = rest?.split(end) ?? [];
  if (before === undefined || after.length === 0) throw new Error(`docs/results.md must have ${begin} and ${end}`);
  return `${before}${begin}\n\n${content}\n\n${end}${after.join(end)}`;
}

/** @param created creation time of the bundled pair */
function conditions(name: string, { date, pair, machine }: Result, created: string): string {
  const predecessor = !WITHOUT_PAIR.includes(name) && pair !== created;
  return `*${date}, ${machine.replace(/, .*/, '')}${predecessor ? ', a predecessor of the embedded pair' : ''}*`;
}

/** A Markdown table. */
function table(titles: readonly string[], rows: readonly (readonly (string | number)[])[]): string {
  const line = (cells: readonly (string | number)[]) => `| ${cells.join(' | ')} |`;
  return [line(titles), line(titles.map(() => '---')), ...rows.map(line)].join('\n');
}

/** Returns the figure at a path in a row, such as 'step_us_p50.plain'. */
function at(row: Row, path: string): number {
  return path.split('.').reduce<unknown>((value, key) => (value as Row | undefined)?.[key], row) as number;
}

const millis = (row: Row, path: string): string => (at(row, path) / 1000).toFixed(1);
const rowsOf = (result: Result): readonly Row[] => result.rows as readonly Row[];

/** @param lines the path of the plotted figure, by the name of the line */
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
    `${millis(r, 'verify_run_us_p50.block')} / ${millis(r, 'verify_run_us_p50.plain')}`,
    Number.isFinite(at(r, 'draft_run_us_p50')) ? millis(r, 'draft_run_us_p50') : '-',
  ]);
  const titles = ['mode', 'tokens per call', 'speedup', 'ms per token, drafted / plain'];
  return {
    text: table([...titles, 'verify run, block / one token, ms', 'draft run, ms'], rows),
    plot: [modesPanel(`${all.get('decode-auto')?.mode_by_step ?? ''}`.slice(0, SHOWN))],
  };
}

/** Number of steps over which the share of each mode is computed. */
const WINDOW = 40;
/** Number of steps shown in the plot. */
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
    text: table(
      ['streams', 'tokens/s, drafter on / off', 'ratio', 'ms per token, on / off'],
      rows.map((row) => [
        at(row, 'streams'),
        `${at(row, 'tokens_per_second.drafted').toFixed(0)} / ${at(row, 'tokens_per_second.plain').toFixed(0)}`,
        at(row, 'throughput_ratio').toFixed(2),
        `${at(row, 'ms_per_token_p50.drafted').toFixed(1)} / ${at(row, 'ms_per_token_p50.plain').toFixed(1)}`,
      ]),
    ),
    plot: [
      panel('Throughput', x, { title: 'tokens/s' }, rows, lines('tokens_per_second')),
      panel('Time per token', x, { title: 'ms' }, rows, lines('ms_per_token_p50')),
    ],
  };
}

function context(result: Result): Section {
  const rows = rowsOf(result).map((row) => [
    at(row, 'context').toLocaleString('en'),
    `${millis(row, 'step_us_p50.drafted')} / ${millis(row, 'step_us_p50.plain')}`,
    `${millis(row, 'verify_run_us_p50.block')} / ${millis(row, 'verify_run_us_p50.plain')}`,
  ]);
  return { text: table(['context', 'step, drafter on / off, ms', 'verify run, block / one token, ms'], rows) };
}

function prefill(result: Result): Section {
  const rows = rowsOf(result).map((row) => [
    at(row, 'prompt'),
    millis(row, 'first_token_us_p50.fresh'),
    millis(row, 'first_token_us_p50.known'),
  ]);
  return { text: table(['prompt', 'new, ms', 'in the prefix cache, ms'], rows) };
}

function overhead(result: Result): Section {
  const rows = rowsOf(result).map((row) => [
    `${at(row, 'draft_ms')}, ${at(row, 'verify_ms')}`,
    row.checks ? 'checks the block' : 'plans branches',
    `${Math.round(100 * at(row, 'sent_ahead'))} %`,
    ['p10', 'p50', 'p90'].map((q) => (at(row, `overhead_us.${q}`) / 1000).toFixed(2)).join(' / '),
  ]);
  return { text: table(['draft, verify, ms', 'drafter', 'sent ahead', 'overhead p10 / p50 / p90, ms'], rows) };
}

function exact(result: Result): Section {
  const count = (path: string) => at(result, path).toLocaleString('en');
  return {
    text: `${count('tokens')} tokens, **${count('mismatches')} mismatches**, ${count('accepted')} drafted tokens accepted.`,
  };
}

function peers(result: Result): Section {
  const keys = ['engine', 'greedy', 'sampled', 'first_token_ms', 'agrees'];
  const rows = rowsOf(result).map((row) => keys.map((key) => `${row[key] ?? '-'}`));
  return { text: table(['engine', 'greedy', 'temperature 0.7', 'first token, ms', 'greedy text as ours'], rows) };
}

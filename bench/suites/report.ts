import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { loadManifest } from '@ptp/protocol/manifest';
import { lineChart, type Panel } from '../plot.ts';
import { loadResults, type Result } from '../results.ts';
import { suite } from '../suite.ts';

const DOCS = join(import.meta.dirname, '..', '..', 'docs');
const MODELS = join(import.meta.dirname, '..', '..', 'models', 'default');
/** Suites that do not run a model. */
const WITHOUT_PAIR = ['overhead', 'scaling', 'seam'];

type Row = Readonly<Record<string, unknown>>;
type Results = ReadonlyMap<string, Result>;

/** Table of one suite in docs/results.md. */
interface Section {
  /** Functions that return the cells of a row, keyed by the titles of their columns. */
  readonly columns: Readonly<Record<string, (row: Row) => string>>;
  /** Returns the rows of the table. Default: the rows of the result. */
  readonly rows?: (all: Results) => readonly Row[];
  readonly plot?: (result: Result) => Panel[];
}

/** Returns the figure at a path in a row, such as 'step_us_p50.plain'. */
function at(row: Row, path: string): number {
  return path.split('.').reduce<unknown>((value, key) => (value as Row | undefined)?.[key], row) as number;
}

/** Makes a cell of figures, separated by slashes. A missing figure is shown as a dash. */
const cell =
  (format: (figure: number) => string) =>
  (...paths: string[]) =>
  (row: Row): string =>
    paths
      .map((path) => at(row, path))
      .map((figure) => (Number.isFinite(figure) ? format(figure) : '-'))
      .join(' / ');
const fixed = (digits: number) => cell((figure) => figure.toFixed(digits));
const millis = cell((micros) => (micros / 1000).toFixed(1));
const count = cell((figure) => figure.toLocaleString('en'));
/** Returns a cell with three quantiles in milliseconds. */
const spread = (micros: string) =>
  cell((figure) => (figure / 1000).toFixed(2))(...['p10', 'p50', 'p90'].map((quantile) => `${micros}.${quantile}`));
const text =
  (key: string) =>
  (row: Row): string =>
    `${row[key] ?? '-'}`;

const SECTIONS: Readonly<Record<string, Section>> = {
  'decode-auto': {
    columns: {
      mode: text('mode'),
      'tokens per call': fixed(2)('tokens_per_call'),
      speedup: (row) => `**${fixed(2)('speedup_vs_ar')(row)}**`,
      'ms per token, drafted / plain': millis('micros_per_token.drafted', 'micros_per_token.plain'),
      'verify run, block / one token, ms': millis('verify_run_us_p50.block', 'verify_run_us_p50.plain'),
      'draft run, ms': millis('draft_run_us_p50'),
    },
    rows: (all) => [...all].filter(([name]) => name.startsWith('decode-')).map(([, result]) => result),
    plot: ({ mode_by_step }) => [modesPanel(`${mode_by_step ?? ''}`.slice(0, SHOWN))],
  },
  load: {
    columns: {
      streams: count('streams'),
      'tokens/s, drafter on / off': fixed(0)('tokens_per_second.drafted', 'tokens_per_second.plain'),
      ratio: fixed(2)('throughput_ratio'),
      'ms per token, on / off': fixed(1)('ms_per_token_p50.drafted', 'ms_per_token_p50.plain'),
    },
    plot: (result) => [
      loadPanel(result, 'Throughput', 'tokens/s', 'tokens_per_second'),
      loadPanel(result, 'Time per token', 'ms', 'ms_per_token_p50'),
    ],
  },
  context: {
    columns: {
      context: count('context'),
      'step, drafter on / off, ms': millis('step_us_p50.drafted', 'step_us_p50.plain'),
      'verify run, block / one token, ms': millis('verify_run_us_p50.block', 'verify_run_us_p50.plain'),
    },
  },
  prefill: {
    columns: {
      prompt: count('prompt'),
      'new, ms': millis('first_token_us_p50.fresh'),
      'in the prefix cache, ms': millis('first_token_us_p50.known'),
    },
  },
  overhead: {
    columns: {
      'draft, verify, ms': (row) => `${row.draft_ms}, ${row.verify_ms}`,
      drafter: (row) => (row.checks ? 'checks the block' : 'plans branches'),
      'sent ahead': (row) => `${Math.round(100 * at(row, 'sent_ahead'))} %`,
      'overhead p10 / p50 / p90, ms': spread('overhead_us'),
    },
  },
  seam: {
    columns: {
      slots: count('slots'),
      'tokens each': count('tokens'),
      'mask of each token, bytes': (row) => (at(row, 'mask') === 0 ? 'none' : count('mask')(row)),
      'p10 / p50 / p90, ms': spread('seam_us'),
    },
  },
  exact: {
    columns: {
      'tokens compared': count('tokens'),
      mismatches: (row) => `**${count('mismatches')(row)}**`,
      'drafted tokens accepted': count('accepted'),
    },
    rows: (all) => [all.get('exact') as Result],
  },
  peers: {
    columns: {
      engine: text('engine'),
      greedy: text('greedy'),
      'temperature 0.7': text('sampled'),
      'first token, ms': text('first_token_ms'),
      'greedy text as ours': text('agrees'),
    },
  },
};

export const report = suite(
  'report',
  'Update the tables and plots of docs/results.md from the results kept with --save',
  [],
  async () => {
    const results = await loadResults();
    const { created } = await loadManifest(MODELS);
    let page = await readFile(join(DOCS, 'results.md'), 'utf8');
    const written = ['docs/results.md'];
    for (const [name, { columns, rows, plot }] of Object.entries(SECTIONS)) {
      const result = results.get(name);
      if (!result) continue;
      const content = table(columns, rows?.(results) ?? (result.rows as readonly Row[]));
      page = withBlock(page, name, `${content}\n\n${conditions(name, result, created)}`);
      if (!plot) continue;
      await writeFile(join(DOCS, `performance-${name}.svg`), await lineChart(plot(result), name));
      written.push(`docs/performance-${name}.svg`);
    }
    await writeFile(join(DOCS, 'results.md'), page);
    return { written };
  },
);

/** Returns a Markdown table. */
function table(columns: Section['columns'], rows: readonly Row[]): string {
  const titles = Object.keys(columns);
  const cells = rows.map((row) => Object.values(columns).map((of) => of(row)));
  return [titles, titles.map(() => '---'), ...cells].map((line) => `| ${line.join(' | ')} |`).join('\n');
}

/** Replaces the text between the markers of one suite. */
function withBlock(page: string, name: string, content: string): string {
  const [begin, end] = [`<!-- measured: ${name} -->`, '<!-- end -->'];
  const [before, rest] = page.split(begin);
  const [, ...after] = rest?.split(end) ?? [];
  if (before === undefined || after.length === 0) throw new Error(`docs/results.md must have ${begin} and ${end}`);
  return `${before}${begin}\n\n${content}\n\n${end}${after.join(end)}`;
}

/** Returns a line with the day and the machine. @param created creation time of the bundled pair */
function conditions(name: string, { date, pair, machine }: Result, created: string): string {
  const isPredecessor = !WITHOUT_PAIR.includes(name) && pair !== created;
  return `*${date}, ${machine.replace(/, .*/, '')}${isPredecessor ? ', a predecessor of the bundled pair' : ''}*`;
}

function loadPanel({ rows }: Result, title: string, unit: string, figure: string): Panel {
  const points = (way: string) =>
    (rows as readonly Row[]).map((row): [number, number] => [at(row, 'streams'), at(row, `${figure}.${way}`)]);
  return {
    title,
    x: { title: 'concurrent streams', scale: 'log' },
    y: { title: unit },
    series: [
      { name: 'drafter on', points: points('drafted') },
      { name: 'drafter off', points: points('plain') },
    ],
  };
}

/** Number of steps over which the share of each mode is computed. */
const WINDOW = 40;
/** Number of steps shown in the plot. */
const SHOWN = 1200;

/** @param steps text with the first letter of each step's mode */
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

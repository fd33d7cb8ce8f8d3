import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { loadManifest } from '@ptp/protocol/manifest';
import { type Axis, lineChart, type Panel } from '../plot.ts';
import { kept, type Result } from '../results.ts';

const DOCS = join(import.meta.dirname, '..', '..', 'docs');
const MODELS = join(import.meta.dirname, '..', '..', 'models', 'default');
/** Suites that run no model. */
const OF_NO_PAIR = ['overhead', 'scaling'];

type Row = Readonly<Record<string, unknown>>;
type Cell = string | number;

/** Writes docs/performance.md and its plots from bench/results. */
export async function report(): Promise<{ written: string[] }> {
  const results = await kept();
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
}

interface Section {
  readonly text: string;
  readonly plot?: readonly Panel[];
}

const SECTIONS: readonly (readonly [string, (result: Result, all: ReadonlyMap<string, Result>) => Section])[] = [
  ['decode-auto', (_, all) => decode(all)],
  ['load', load],
  ['context', context],
  ['prefill', prefill],
  ['overhead', overhead],
  ['exact', exact],
  ['peers', peers],
];

function measured([name, { date, pair, machine }]: readonly [string, Result], created: string): string {
  const needsPair = !OF_NO_PAIR.includes(name);
  return `| ${name} | ${date} | ${machine.replace(/, .*/, '')} | ${needsPair && pair !== created ? 'an earlier pair' : ''} |`;
}

/** @param created of the embedded pair */
function head(results: ReadonlyMap<string, Result>, created: string): string {
  const shown = [...results].filter(
    ([name]) => name.startsWith('decode') || SECTIONS.some(([section]) => section === name),
  );
  return `# Performance

What the benches measured last on the embedded pair. Made by \`npm run bench -- report\` from [bench/results](../bench/results), where each file is what
\`npm run bench -- SUITE --save\` printed. Two shared cores, one thread for each engine.
All comparisons are passesd in one run; the machine is shared, so ratios say more than times. Scaling beyond one
machine is simulated in [scaling.md](scaling.md).

| suite | measured | machine | |
| --- | --- | --- | --- |
${shown.map((result) => measured(result, created)).join('\n')}`;
}

/** A Markdown table. */
function table(titles: readonly string[], rows: readonly (readonly Cell[])[]): string {
  const line = (cells: readonly Cell[]) => `| ${cells.join(' | ')} |`;
  return [line(titles), line(titles.map(() => '---')), ...rows.map(line)].join('\n');
}

/** A figure by its path in a row: 'step_us_p50.plain'. */
function at(row: Row, path: string): number {
  return path.split('.').reduce<unknown>((value, key) => (value as Row | undefined)?.[key], row) as number;
}

const millis = (micros: number): string => (micros / 1000).toFixed(1);
const rowsOf = (result: Result): readonly Row[] => result.rows as readonly Row[];

function panel(
  title: string,
  x: Axis,
  y: Axis,
  rows: readonly Row[],
  xPath: string,
  lines: Record<string, string>,
  scale = 1,
): Panel {
  const series = Object.entries(lines).map(([name, path]) => ({
    name,
    points: rows.map((row): [number, number] => [at(row, xPath), at(row, path) * scale]),
  }));
  return { title, x, y, series };
}

function decode(all: ReadonlyMap<string, Result>): Section {
  const modes = [...all].filter(([name]) => name.startsWith('decode-')).map(([, result]) => result);
  const rows = modes.map((r) => [
    `${r.mode}`,
    at(r, 'tokens_per_call').toFixed(2),
    `**${at(r, 'speedup_vs_ar').toFixed(2)}**`,
    `${millis(at(r, 'micros_per_token.drafted'))} / ${millis(at(r, 'micros_per_token.plain'))}`,
    `${at(r, 'overlap_ratio') ?? '-'}`,
    `${millis(at(r, 'verify_run_us_p50.block'))} / ${millis(at(r, 'verify_run_us_p50.plain'))}`,
    Number.isFinite(at(r, 'draft_run_us_p50')) ? millis(at(r, 'draft_run_us_p50')) : '-',
  ]);
  const titles = ['mode', 'tokens per call', 'speedup over plain decoding', 'ms per token, drafted / plain'];
  titles.push('step / max(draft, verify)', 'verify run, block / one token, ms', 'draft run, ms');
  return {
    text: `## One stream

\`npm run bench -- decode --mode MODE\`: held-out prompts, temperature 0.7, top-k 50, top-p 0.9, drafter on and off in turn; medians. \`auto\` is the
server's default.

${table(titles, rows)}

What \`auto\` did from its first step on: the share of each mode among the last ${WINDOW} steps. Warm-up, then trials of the other modes, fewer and fewer.`,
    plot: [modesPanel(`${all.get('decode-auto')?.mode_by_step ?? ''}`.slice(0, SHOWN))],
  };
}

/** Steps over which a share of modes is taken, and steps shown. */
const WINDOW = 40;
const SHOWN = 1200;

/** @param steps a letter for each step's mode */
function modesPanel(steps: string): Panel {
  const at = Array.from({ length: Math.floor(steps.length / (WINDOW / 4)) }, (_, i) => (i + 1) * (WINDOW / 4));
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
      points: at.map((end): [number, number] => [end, share(name[0] as string, end)]),
    })),
  };
}

function load(result: Result): Section {
  const rows = rowsOf(result);
  const x: Axis = { title: 'streams at once', scale: 'log' };
  const lines = (path: string) => ({ 'drafter on': `${path}.drafted`, 'drafter off': `${path}.plain` });
  return {
    text: `## Many streams

\`npm run bench -- load\`: throughput and time per token with so many streams at once.

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
      panel('Throughput', x, { title: 'tokens/s' }, rows, 'streams', lines('tokens_per_second')),
      panel('Time per token', x, { title: 'ms' }, rows, 'streams', lines('ms_per_token_p50')),
    ],
  };
}

function context(result: Result): Section {
  const rows = rowsOf(result);
  const lines = { 'step, drafter off': 'step_us_p50.plain', 'step, drafter on': 'step_us_p50.drafted' };
  const runs = { 'verify run, one token': 'verify_run_us_p50.plain', 'verify run, block': 'verify_run_us_p50.block' };
  const x: Axis = { title: 'tokens of context' };
  return {
    text: `## Length of the context

\`npm run bench -- context\` on a folder of the same pair exported with \`--context 4352\`: time of a step.${table(
      ['context', 'step, drafter on / off, ms', 'verify run, block / one token, ms'],
      rows.map((row) => [
        at(row, 'context'),
        `${millis(at(row, 'step_us_p50.drafted'))} / ${millis(at(row, 'step_us_p50.plain'))}`,
        `${millis(at(row, 'verify_run_us_p50.block'))} / ${millis(at(row, 'verify_run_us_p50.plain'))}`,
      ]),
    ).replace('|', '\n\n|')}`,
    plot: [panel('Time of a step', x, { title: 'ms' }, rows, 'context', { ...lines, ...runs }, 1e-3)],
  };
}

function prefill(result: Result): Section {
  const rows = rowsOf(result);
  const lines = { 'new prompt': 'first_token_us_p50.fresh', 'known to the prefix cache': 'first_token_us_p50.known' };
  return {
    text: `## Time to the first token

\`npm run bench -- prefill\`: without the drafter, by the length of the prompt; new ones, and ones that the prefix cache knows.`,
    plot: [
      panel('Time to the first token', { title: 'tokens of prompt' }, { title: 'ms' }, rows, 'prompt', lines, 1e-3),
    ],
  };
}

function overhead(result: Result): Section {
  return {
    text: `## What a step takes beside the engines

\`npm run bench -- overhead\`: engines that only wait; what a step takes beyond the longer of draft and verify, three warm processes. A drafter that
plans branches sends no step ahead; one that checks blocks does where its draft is there before the verdict.

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
  const n = (path: string) => at(result, path).toLocaleString('en');
  return {
    text: `## Exactness

\`npm run bench -- exact\`: ${n('tokens')} tokens compared with plain decoding, alone and eight at once, at temperatures 0, 0.7 and 1, with batches, prefix
cache and controller: **${n('mismatches')} mismatches**; ${n('accepted')} proposed tokens were accepted on the way.`,
  };
}

function peers(result: Result): Section {
  return {
    text: `## Beside other engines

\`npm run bench -- peers\`: the same weights in float32, one thread for each engine, prompt by prompt in turn; medians.

${table(
  ['engine', 'tokens/s greedy', 'tokens/s at 0.7', 'first token, ms', 'greedy text as ours'],
  rowsOf(result).map((row) =>
    ['engine', 'greedy', 'sampled', 'first_token_ms', 'agrees'].map((key) => `${row[key] ?? '-'}`),
  ),
)}`,
  };
}

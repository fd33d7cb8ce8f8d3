import type { Mode } from '../../gateway/src/decode/types.ts';
import type { Axis, Panel } from '../plot.ts';
import { round } from '../statistics.ts';
import { CHECKING_DRAFTER, curveOf, DRAFTER, OVERHEAD, TARGET } from './costs.ts';
import { type Scenario, simulate } from './simulate.ts';

const MILLIS = 1000;
const SECONDS = 1e6;

/** Defaults of every simulation. docs/results.md gives the reasons for these assumptions. */
export const BASE: Scenario = {
  sequences: 1,
  verifiers: 1,
  drafters: 1,
  verifier: { curve: curveOf(TARGET, OVERHEAD.target), slots: 256, tokens: 4096, jitter: 0.05 },
  drafter: { curve: curveOf(DRAFTER, OVERHEAD.drafter), slots: 512, tokens: 16_384, jitter: 0.05 },
  delay: 0.25 * MILLIS,
  limits: { length: 8, budget: 32, mode: 'auto' },
  controller: true,
  quality: { chance: 0.75, hits: [0.45, 0.75] },
  prompt: [128, 896],
  output: [128, 384],
  draftTimeout: 500 * MILLIS,
  seed: 1,
  settle: 2 * SECONDS,
  counted: 3 * SECONDS,
};

/** Fields that differ from BASE. */
type Change = Partial<Scenario>;
/** Returns the changes for one x. If there are several, only the fastest result (in tokens per second) is kept. */
type Changes = (x: number) => Change | readonly Change[];

/** A plot in docs/results.md. It shows one scenario: one field varies along x, and another between the series. */
export interface Sweep {
  /** Name of the file in docs. */
  readonly file: string;
  readonly title: string;
  readonly x: Axis;
  readonly xs: readonly number[];
  /** Plotted figures, one per panel. */
  readonly panels: readonly (keyof typeof PANELS)[];
  /** Changes of each series, keyed by its name in the plots. */
  readonly series: Readonly<Record<string, Changes>>;
}

/** Titles of a panel and of its y axis. */
const PANELS = {
  tokens_per_second: ['Throughput', 'tokens per second'],
  ms_per_token: ['Time per token', 'time per token, ms'],
} as const;

const mode = (chosen: Mode | 'auto') => ({ limits: { ...BASE.limits, mode: chosen } });
/** Always drafts blocks of exactly `length` tokens. */
const blocksOf = (length: number): Change => ({
  limits: { ...BASE.limits, length, mode: 'overlap' },
  controller: false,
});
/** Mode `auto`. Times are in seconds, and must be long enough to include the controller's trials of other modes. */
const auto = (settle: number, counted: number): Change => ({
  ...mode('auto'),
  settle: settle * SECONDS,
  counted: counted * SECONDS,
});
/** Measures for longer when there are few sequences, so that there are enough steps. */
const counted = (sequences: number): Change => ({ sequences, counted: Math.max(3, 60 / sequences) * SECONDS });
/** The bundled pair's drafter, which agrees with the target on 97 % of the tokens at temperature 0.7. */
const checking: Change = {
  limits: { ...BASE.limits, mode: 'overlap', ahead: 4 },
  drafter: { ...BASE.drafter, curve: curveOf(CHECKING_DRAFTER, OVERHEAD.drafter) },
  quality: { ...BASE.quality, checks: 0.97 },
};

/** Eight verifiers with 32 sequences each. @param x number of drafters per verifier */
const eightVerifiers = (x: number) => ({ sequences: 256, verifiers: 8, drafters: 8 * x });
/** A single sequence. @param x one-way network delay in milliseconds */
const distant = (x: number) => ({ ...counted(1), delay: x * MILLIS });

export const SWEEPS: Readonly<Record<'concurrency' | 'ratio' | 'delay', Sweep>> = {
  concurrency: {
    file: 'scaling-concurrency.svg',
    title: 'Simulated throughput and time per token by concurrent sequences',
    x: { title: 'concurrent sequences, on one verifier and one drafter', scale: 'log' },
    xs: [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 768],
    panels: ['tokens_per_second', 'ms_per_token'],
    series: {
      plain: (n) => ({ ...mode('plain'), ...counted(n) }),
      sequential: (n) => ({ ...mode('sequential'), ...counted(n) }),
      overlap: (n) => ({ ...mode('overlap'), ...counted(n) }),
      auto: (n) => ({ sequences: n, ...auto(20, Math.max(20, 60 / n)) }),
      'overlap, drafter that checks': (n) => ({ ...checking, ...counted(n) }),
      'overlap, best fixed block': (n) => [1, 2, 3, 4, 6, 8].map((length) => ({ ...blocksOf(length), ...counted(n) })),
    },
  },
  ratio: {
    file: 'scaling-ratio.svg',
    title: 'Simulated throughput of eight verifiers with 256 sequences by drafters per verifier',
    x: { title: 'drafters per verifier', scale: 'log' },
    xs: [0.125, 0.25, 0.5, 1],
    panels: ['tokens_per_second'],
    series: {
      plain: (x) => ({ ...eightVerifiers(x), ...mode('plain') }),
      overlap: (x) => ({ ...eightVerifiers(x), ...mode('overlap') }),
      auto: (x) => ({ ...eightVerifiers(x), ...auto(8, 4) }),
    },
  },
  delay: {
    file: 'scaling-delay.svg',
    title: 'Simulated time per token of one sequence by network delay',
    x: { title: 'network delay one way, ms' },
    xs: [0, 0.25, 1, 2, 5, 10, 20],
    panels: ['ms_per_token'],
    series: {
      plain: (x) => ({ ...distant(x), ...mode('plain') }),
      sequential: (x) => ({ ...distant(x), ...mode('sequential') }),
      overlap: (x) => ({ ...distant(x), ...mode('overlap') }),
      auto: (x) => ({ ...distant(x), ...auto(20, 60) }),
      'overlap, drafter that checks': (x) => ({ ...distant(x), ...checking }),
      'the same, steps wait': (x) => ({ ...distant(x), ...checking, ...mode('overlap') }),
      'the same, drafter near': (x) => ({ ...distant(x), ...checking, drafterDelay: BASE.delay }),
    },
  },
};

/** A point of a series. */
export type Row = ReturnType<typeof rowOf>;

/** @param onRow function that receives each point as soon as it has been simulated */
export function runSweep({ series, xs }: Sweep, onRow: (row: Row) => void): Row[] {
  const rows: Row[] = [];
  for (const [name, changes] of Object.entries(series)) {
    for (const x of xs) {
      const tries = [changes(x)].flat().map((change) => rowOf(name, x, { ...BASE, ...change }));
      const best = tries.reduce((a, b) => (b.tokens_per_second > a.tokens_per_second ? b : a));
      rows.push(best);
      onRow(best);
    }
  }
  return rows;
}

function rowOf(series: string, x: number, scenario: Scenario) {
  const { verifier, drafter, ...outcome } = simulate(scenario);
  return {
    series,
    x,
    tokens_per_second: round(outcome.tokensPerSecond, 0),
    ms_per_token: round(outcome.millisPerToken),
    tokens_per_step: round(outcome.tokensPerStep, 2),
    /** Maximum number of tokens in a block. */
    length: scenario.limits.length,
    verifier_busy: round(verifier.busy, 2),
    drafter_busy: round(drafter.busy, 2),
  };
}

/** Returns the panels of a sweep's plot. */
export function panelsOf({ panels, x }: Sweep, rows: readonly Row[]): Panel[] {
  return panels.map((figure) => {
    const [title, y] = PANELS[figure];
    const series = [...Map.groupBy(rows, ({ series }) => series)].map(([name, points]) => ({
      name,
      points: points.map((row): [number, number] => [row.x, row[figure]]),
      dashed: name.includes(','),
    }));
    return { title, x, y: { title: y }, series };
  });
}

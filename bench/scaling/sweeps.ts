import type { Mode } from '../../gateway/src/decode/types.ts';
import { round } from '../statistics.ts';
import { CHECKING_DRAFTER, curveOf, DRAFTER, GPU, LARGER_DRAFTER, type Model, OVERHEAD, TARGET } from './costs.ts';
import { type Outcome, type Scenario, simulate } from './simulate.ts';

const MILLIS = 1000;
const SECONDS = 1e6;

/** Defaults of every simulation. docs/results.md gives the reasons for these assumptions. */
export const BASE: Scenario = {
  sequences: 1,
  verifiers: 1,
  drafters: 1,
  verifier: { curve: curveOf(TARGET, GPU, OVERHEAD.target), slots: 256, tokens: 4096, gather: 0, jitter: 0.05 },
  drafter: { curve: curveOf(DRAFTER, GPU, OVERHEAD.drafter), slots: 512, tokens: 16_384, gather: 0, jitter: 0.05 },
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
/** Changes for one x. If there are several, only the fastest result (in tokens per second) is kept. */
type Changes = (x: number) => Change | readonly Change[];

export interface Sweep {
  readonly name: string;
  readonly xs: readonly number[];
  /** Series by their names in the plots. */
  readonly series: Readonly<Record<string, Changes>>;
}

/** A point of a series. */
export interface Row {
  readonly series: string;
  readonly x: number;
  readonly tokens_per_second: number;
  readonly ms_per_token: number;
  readonly tokens_per_step: number;
  /** Drafted tokens per step. */
  readonly drafted: number;
  /** Maximum block length. */
  readonly length: number;
  readonly plain_share: number;
  readonly redraft_share: number;
  readonly verifier_busy: number;
  readonly verifier_batch: number;
  readonly drafter_busy: number;
  readonly late: number;
}

const mode = (chosen: Mode | 'auto') => ({ limits: { ...BASE.limits, mode: chosen } });
/** Always drafts blocks of exactly `length` tokens. */
const blocksOf = (length: number): Change => ({
  limits: { ...BASE.limits, length, mode: 'overlap' },
  controller: false,
});
/** Mode `auto`. Times are in seconds, long enough to include the controller's trials of other modes. */
const auto = (settle: number, counted: number): Change => ({
  ...mode('auto'),
  settle: settle * SECONDS,
  counted: counted * SECONDS,
});
/** The fewer sequences, the longer the measured time, so that there are enough steps. */
const counted = (sequences: number): Change => ({ sequences, counted: Math.max(3, 60 / sequences) * SECONDS });
const drafterOf = (model: Model) => ({ ...BASE.drafter, curve: curveOf(model, GPU, OVERHEAD.drafter) });
/** The bundled pair's drafter agrees with the target on 97 % of the tokens at temperature 0.7. */
const checking: Change = {
  limits: { ...BASE.limits, mode: 'overlap', ahead: 4 },
  drafter: drafterOf(CHECKING_DRAFTER),
  quality: { ...BASE.quality, checks: 0.97 },
};

const concurrency: Sweep = {
  name: 'concurrency',
  xs: [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 768],
  series: {
    plain: (n) => ({ ...mode('plain'), ...counted(n) }),
    sequential: (n) => ({ ...mode('sequential'), ...counted(n) }),
    overlap: (n) => ({ ...mode('overlap'), ...counted(n) }),
    auto: (n) => ({ sequences: n, ...auto(20, Math.max(20, 60 / n)) }),
    'overlap, drafter that checks': (n) => ({ ...checking, ...counted(n) }),
    'overlap, best fixed block': (n) => [1, 2, 3, 4, 6, 8].map((length) => ({ ...blocksOf(length), ...counted(n) })),
  },
};

/** Sweeps the number of drafters per verifier, with 8 verifiers. */
function ratio(perVerifier: number, settle: number, autoCounted: number): Sweep {
  const verifiers = 8;
  const base = (drafters: number) => ({
    sequences: verifiers * perVerifier,
    verifiers,
    drafters: drafters * verifiers,
  });
  return {
    name: `ratio, ${perVerifier} sequences per verifier`,
    xs: [1, 2, 4, 8].map((drafters) => drafters / verifiers),
    series: {
      plain: (x) => ({ ...base(x), ...mode('plain') }),
      overlap: (x) => ({ ...base(x), ...mode('overlap') }),
      auto: (x) => ({ ...base(x), ...auto(settle, autoCounted) }),
      'overlap, 1B-class drafter': (x) => ({ ...base(x), ...mode('overlap'), drafter: drafterOf(LARGER_DRAFTER) }),
      'overlap, blocks of 2': (x) => ({ ...base(x), ...blocksOf(2) }),
    },
  };
}

/** Sweeps the one-way network delay, in milliseconds. */
function delay(sequences: number): Sweep {
  const base = (millis: number) => ({ ...counted(sequences), delay: millis * MILLIS });
  return {
    name: `delay, ${sequences} sequences`,
    xs: [0, 0.25, 1, 2, 5, 10, 20],
    series: {
      plain: (x) => ({ ...base(x), ...mode('plain') }),
      sequential: (x) => ({ ...base(x), ...mode('sequential') }),
      overlap: (x) => ({ ...base(x), ...mode('overlap') }),
      auto: (x) => ({ ...base(x), ...auto(20, Math.max(10, 60 / sequences)) }),
      'overlap, drafter that checks': (x) => ({ ...base(x), ...checking }),
      'the same, steps wait': (x) => ({ ...base(x), ...checking, ...mode('overlap') }),
      'the same, drafter near': (x) => ({ ...base(x), ...checking, drafterDelay: BASE.delay }),
    },
  };
}

/** Sweeps the maximum number of sequences in one run of the verifier. */
const slots: Sweep = {
  name: 'slots, 512 sequences',
  xs: [8, 16, 32, 64, 128, 256, 512],
  series: Object.fromEntries(
    Object.entries({
      plain: mode('plain'),
      overlap: mode('overlap'),
      'overlap, blocks of 2': blocksOf(2),
    }).map(([name, change]) => [
      name,
      (x: number) => ({ ...counted(512), ...change, verifier: { ...BASE.verifier, slots: x, tokens: 16 * x } }),
    ]),
  ),
};

/** Sweeps the time that a run of the verifier waits for more sequences, in milliseconds. */
const wait: Sweep = {
  name: 'wait, 32 sequences',
  xs: [0, 0.25, 0.5, 1, 1.5, 2, 3, 4],
  series: Object.fromEntries(
    (['plain', 'sequential', 'overlap'] as const).map((name) => [
      name,
      (x: number) => ({ ...counted(32), ...mode(name), verifier: { ...BASE.verifier, gather: x * MILLIS } }),
    ]),
  ),
};

export const SWEEPS = {
  concurrency,
  ratioAtRest: ratio(32, 8, 4),
  ratioAtLoad: ratio(512, 8, 4),
  delayOfOne: delay(1),
  delayOfMany: delay(64),
  slots,
  wait,
} as const;

/** The rows of each sweep. */
export type SweepRows = Readonly<Record<keyof typeof SWEEPS, readonly Row[]>>;

/** @param onRow receives each point as soon as it has been simulated */
export function runSweep({ series, xs }: Sweep, onRow: (row: Row) => void): Row[] {
  const rows: Row[] = [];
  for (const [name, changes] of Object.entries(series)) {
    for (const x of xs) {
      const tries = [changes(x)].flat().map((change) => {
        const scenario = { ...BASE, ...change };
        return rowOf(name, x, scenario.limits.length, simulate(scenario));
      });
      const best = tries.reduce((a, b) => (b.tokens_per_second > a.tokens_per_second ? b : a));
      rows.push(best);
      onRow(best);
    }
  }
  return rows;
}

function rowOf(series: string, x: number, length: number, outcome: Outcome): Row {
  const { verifier, drafter, modes } = outcome;
  return {
    series,
    x,
    tokens_per_second: round(outcome.tokensPerSecond, 0),
    ms_per_token: round(outcome.millisPerToken),
    tokens_per_step: round(outcome.tokensPerStep, 2),
    drafted: round(outcome.drafted / outcome.steps, 2),
    length,
    plain_share: round(modes.plain, 2),
    redraft_share: round(outcome.redrafts, 2),
    verifier_busy: round(verifier.busy, 2),
    verifier_batch: round(verifier.batch, 1),
    drafter_busy: round(drafter.busy, 2),
    late: outcome.late,
  };
}

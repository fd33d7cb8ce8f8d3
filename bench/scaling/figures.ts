import type { Axis, Panel } from '../plot.ts';
import type { Row, SweepRows } from './sweeps.ts';

/** A plot shown in docs/results.md. */
export interface Figure {
  readonly file: string;
  readonly title: string;
  readonly panels: readonly Panel[];
}

const THROUGHPUT = { title: 'tokens per second' };
const PER_TOKEN = { title: 'time per token, ms' };

export function figures(rows: SweepRows): Figure[] {
  const sequences: Axis = { title: 'sequences at once, on one verifier and one drafter', scale: 'log' };
  const drafters: Axis = { title: 'drafters per verifier', scale: 'log' };
  const delay = { title: 'network delay one way, ms' };
  const slots: Axis = { title: 'sequences in one run, at most', scale: 'log' };
  const wait = { title: 'a run waits for others, ms' };
  return [
    {
      file: 'scaling-concurrency.svg',
      title: 'Simulated throughput and time per token by sequences at once',
      panels: [
        throughput('Throughput', sequences, rows.concurrency),
        millis('Time per token', sequences, rows.concurrency),
      ],
    },
    {
      file: 'scaling-ratio.svg',
      title: 'Simulated throughput of eight verifiers by drafters per verifier',
      panels: [
        throughput('256 sequences on 8 verifiers', drafters, rows.ratioAtRest),
        throughput('4096 sequences on 8 verifiers', drafters, rows.ratioAtLoad),
      ],
    },
    {
      file: 'scaling-delay.svg',
      title: 'Simulated time per token and throughput by network delay',
      panels: [millis('One sequence', delay, rows.delayOfOne), throughput('64 sequences', delay, rows.delayOfMany)],
    },
    {
      file: 'scaling-batch.svg',
      title: 'Simulated throughput by the limit of a batch, and by how long a run waits for others',
      panels: [
        throughput('Batch limit, 512 sequences', slots, rows.slots),
        throughput('Waiting, 32 sequences', wait, rows.wait),
      ],
    },
  ];
}

const throughput = (title: string, x: Axis, rows: readonly Row[]): Panel => ({
  title,
  x,
  y: THROUGHPUT,
  series: seriesOf(rows, (row) => row.tokens_per_second),
});

const millis = (title: string, x: Axis, rows: readonly Row[]): Panel => ({
  title,
  x,
  y: PER_TOKEN,
  series: seriesOf(rows, (row) => row.ms_per_token),
});

function seriesOf(rows: readonly Row[], value: (row: Row) => number): Panel['series'] {
  return [...Map.groupBy(rows, ({ series }) => series)].map(([name, of]) => ({
    name,
    points: of.map((row): [number, number] => [row.x, value(row)]),
    dashed: name.includes(','),
  }));
}

import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { lineChart } from '../plot.ts';
import { figures } from '../scaling/figures.ts';
import { BASE, type Row, runSweep, SWEEPS, type SweepRows } from '../scaling/sweeps.ts';
import { suite } from '../suite.ts';

const DOCS = join(import.meta.dirname, '..', '..', 'docs');

/** Simulates drafters, verifiers and up to thousands of sequences with assumed GPU run times. Nothing here is measured. */
export const scaling = suite(
  'scaling',
  'Simulate many sequences on several GPUs in virtual time, without a model; writes the scaling plots of docs/results.md',
  [],
  async () => {
    const rows = {} as Record<keyof SweepRows, Row[]>;
    for (const key of Object.keys(SWEEPS) as (keyof SweepRows)[]) {
      const { name } = SWEEPS[key];
      rows[key] = runSweep(SWEEPS[key], (row) => console.error(JSON.stringify({ sweep: name, ...row })));
    }
    const written: string[] = [];
    for (const { file, panels, title } of figures(rows)) {
      await writeFile(join(DOCS, file), await lineChart(panels, title));
      written.push(`docs/${file}`);
    }
    return { simulated: true, assumed: BASE, sweeps: rows, written };
  },
);

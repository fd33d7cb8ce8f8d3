import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { lineChart } from '../plot.ts';
import { BASE, panelsOf, type Row, runSweep, SWEEPS } from '../scaling/sweeps.ts';
import { suite } from '../suite.ts';

const DOCS = join(import.meta.dirname, '..', '..', 'docs');

/** Simulates drafters, verifiers and up to hundreds of sequences with assumed GPU run times. Nothing here is measured. */
export const scaling = suite(
  'scaling',
  'Simulate many sequences on several GPUs in virtual time, without a model; writes the scaling plots of docs/results.md',
  [],
  async () => {
    const sweeps: Record<string, Row[]> = {};
    for (const [name, sweep] of Object.entries(SWEEPS)) {
      const rows = runSweep(sweep, (row) => console.error(JSON.stringify({ sweep: name, ...row })));
      await writeFile(join(DOCS, sweep.file), await lineChart(panelsOf(sweep, rows), sweep.title));
      sweeps[name] = rows;
    }
    return { simulated: true, assumed: BASE, sweeps };
  },
);

import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { lineChart } from '../plot.ts';
import { figures } from '../scaling/figures.ts';
import { BASE, type Row, run, SWEEPS } from '../scaling/sweeps.ts';

const DOCS = join(import.meta.dirname, '..', '..', 'docs');

/**
 * Simulates drafters, verifiers and up to thousands of sequences in virtual time, with assumed run times of GPUs and no model, and writes
 * the plots of docs/scaling.md. Nothing here is measured.
 */
export async function scaling(): Promise<{ simulated: true; assumed: object; sweeps: object; written: string[] }> {
  const entries = Object.entries(SWEEPS).map(([key, sweep]) => {
    const rows = run(sweep, (row) => console.error(JSON.stringify({ sweep: sweep.name, ...row })));
    return [key, rows] as const;
  });
  const rows = Object.fromEntries(entries) as Record<keyof typeof SWEEPS, Row[]>;
  const written: string[] = [];
  for (const { file, panels, title } of figures(rows)) {
    await writeFile(join(DOCS, file), await lineChart(panels, title));
    written.push(`docs/${file}`);
  }
  return { simulated: true, assumed: BASE, sweeps: rows, written };
}

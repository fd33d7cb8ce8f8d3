import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openTargetEngine } from '@ptp/engine/open-engine';
import { allowOnly } from '@ptp/engine/sampling/adjust';
import type { TargetEngine, TargetSlot } from '@ptp/engine/types';
import { fakeTargetFor } from '../fake-model.ts';
import { median, quantile } from '../statistics.ts';
import { integerOption, suite } from '../suite.ts';

const MODEL = join(import.meta.dirname, '..', '..', 'models', 'default');
const WORKER = join(import.meta.dirname, '..', 'engine-worker.ts');

/** Steps to measure: the number of slots in a run, the number of tokens in a slot, and the size of a mask in bytes. */
const STEPS = [
  { slots: 1, tokens: 1, mask: 0 },
  { slots: 1, tokens: 9, mask: 0 },
  { slots: 4, tokens: 9, mask: 0 },
  // A mask for each token, as large as for a vocabulary of 152,000 tokens.
  { slots: 1, tokens: 9, mask: 19_000 },
];
/** Number of unmeasured steps before each row, in which V8 compiles the hot code of both processes. */
const WARM_UP = 2000;

interface Options {
  readonly steps: number;
}

/**
 * The same fake engine runs in this process and in another, behind a unix socket. It has no latency, so the difference
 * is what serialisation, gRPC and the change of process cost. Steps of the two engines alternate.
 */
export const seam = suite<Options>(
  'seam',
  'Measure what a step costs if the engine runs in another process',
  [integerOption('--steps <n>', 'steps per row', 4000)],
  async ({ steps }) => {
    const folder = await mkdtemp(join(tmpdir(), 'ptp-seam-'));
    const address = `unix:${join(folder, 'engine')}`;
    const worker = spawn(process.execPath, [WORKER, 'fake', address, MODEL], {
      env: { ...process.env, PTP_LOG_LEVEL: 'warn' },
      stdio: ['ignore', 'inherit', 'inherit'],
    });
    try {
      const engines = [await fakeTargetFor(MODEL), await openTargetEngine({ dir: MODEL, address })] as const;
      const rows = [];
      for (const step of STEPS) {
        await measure(engines, step, WARM_UP);
        rows.push({ ...step, ...(await measure(engines, step, steps)) });
        console.error(JSON.stringify(rows.at(-1)));
      }
      await Promise.all(engines.map((engine) => engine.dispose()));
      return { rows };
    } finally {
      if (worker.kill()) await once(worker, 'exit');
      await rm(folder, { recursive: true, force: true });
    }
  },
);

/** Runs steps on both engines, in turns. */
async function measure(
  engines: readonly [TargetEngine, TargetEngine],
  { slots, tokens, mask }: (typeof STEPS)[number],
  steps: number,
): Promise<object> {
  const adjust = Array.from({ length: mask > 0 ? tokens : 0 }, () => allowOnly(new Uint8Array(mask).fill(255)));
  const slotsOf = engines.map((engine) =>
    Array.from(
      { length: slots },
      (): TargetSlot => ({
        sequence: engine.open(),
        at: 0,
        tokens: Array.from({ length: tokens }, (_, i) => i),
        sampling: { temperature: 0.7, topK: 0, topP: 0.95 },
        uniforms: { seed: 2n ** 63n, offset: 0 },
        ...(mask > 0 && { adjust }),
      }),
    ),
  );
  const times: [number[], number[]] = [[], []];
  for (let step = 0; step < steps; step++) {
    for (const [i, engine] of engines.entries()) {
      const started = performance.now();
      await engine.run(slotsOf[i] as TargetSlot[]);
      times[i]?.push((performance.now() - started) * 1000);
    }
  }
  for (const [i, engine] of engines.entries()) for (const { sequence } of slotsOf[i] ?? []) engine.close(sequence);
  const [local, remote] = times;
  const seam = remote.map((time, step) => time - (local[step] as number));
  return {
    in_process_us: { p50: Math.round(median(local)) },
    seam_us: {
      p10: Math.round(quantile(seam, 0.1)),
      p50: Math.round(median(seam)),
      p90: Math.round(quantile(seam, 0.9)),
    },
  };
}

import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Generator, Mode } from '../../gateway/src/decode/types.ts';
import { decodeMicros, decodeRequest, type Pass, REFERENCE } from '../passes.ts';
import { lineChart } from '../plot.ts';
import { round, sum } from '../statistics.ts';
import { type PairBench, pairSuite } from '../suite.ts';

const PLOT = join(import.meta.dirname, '..', '..', 'docs', 'hosts-delay.svg');
/** Number of steps sent ahead. More than fit into the longest delay, so that the delay is fully hidden. */
const AHEAD = 12;
const WAYS: Readonly<Record<string, { readonly mode: Mode; readonly ahead: number }>> = {
  'overlap, sent ahead': { mode: 'overlap', ahead: AHEAD },
  overlap: { mode: 'overlap', ahead: 0 },
  sequential: { mode: 'sequential', ahead: 0 },
  'no drafter, sent ahead': { mode: 'plain', ahead: AHEAD },
  'no drafter': { mode: 'plain', ahead: 0 },
};
const NAMES = Object.keys(WAYS);
/** Delays in milliseconds in each direction. */
const DELAYS = [0, 1, 2, 5, 10, 20];
/**
 * Delayed services, with the titles of their plots: all services, or only the verifier, while the drafter stays next to
 * the gateway.
 */
const FAR = { all: 'All services far', verifiers: 'Verifiers far, drafters near' };
type Far = keyof typeof FAR;

/** Measures the decode loop with a proxy in front of each service, which adds the delay. */
export const hosts = pairSuite({
  name: 'hosts',
  description:
    'Measure the time per token by the delay between gateway, verifier and drafter. Writes docs/hosts-delay.svg',
  counts: { tokens: 128, prompts: 8 },
  services: { networks: true },
  run: measure,
});

async function measure(bench: PairBench): Promise<object> {
  const { verifier, drafter } = bench.networks;
  if (!verifier || !drafter) throw new Error('hosts requires networks in front of both services');
  const loops = NAMES.map((name): [string, Generator] => [name, bench.another({ ...bench.limits, ...WAYS[name] })]);
  const rows: { far: Far; delay_ms: number; ms_per_token: Record<string, number> }[] = [];
  for (const far of Object.keys(FAR) as Far[]) {
    for (const delay of DELAYS) {
      verifier.delayMs = delay;
      drafter.delayMs = far === 'all' ? delay : 0;
      rows.push({ far, delay_ms: delay, ms_per_token: await millisPerToken(loops, bench) });
      console.error(JSON.stringify(rows.at(-1)));
    }
  }
  const panels = (Object.keys(FAR) as Far[]).map((far) => ({
    title: FAR[far],
    x: { title: 'delay added each way, ms' },
    y: { title: 'ms per token' },
    series: NAMES.map((name) => ({
      name,
      points: rows
        .filter((row) => row.far === far)
        .map((row) => [row.delay_ms, row.ms_per_token[name] as number] as const),
    })),
  }));
  await writeFile(PLOT, await lineChart(panels, 'Time per token by the delay between hosts, for each way of drafting'));
  return { rows };
}

/** Decodes every prompt in every way, starting with a different way for each prompt. */
async function millisPerToken(loops: readonly [string, Generator][], { prompts, options }: PairBench) {
  const passes = loops.map((): Pass[] => []);
  for (const [i, prompt] of prompts.entries()) {
    for (let turn = 0; turn < loops.length; turn++) {
      const way = (i + turn) % loops.length;
      const request = { prompt, sampling: REFERENCE, seed: BigInt(i), maxTokens: options.tokens };
      const generator = (loops[way] as [string, Generator])[1];
      passes[way]?.push(await decodeRequest(generator, { ...request, ignoreEndOfText: true }));
    }
  }
  const perToken = (some: readonly Pass[]) => sum(some.map(decodeMicros)) / sum(some.map((pass) => pass.tokens.length));
  return Object.fromEntries(loops.map(([name], way) => [name, round(perToken(passes[way] ?? []) / 1000, 2)]));
}

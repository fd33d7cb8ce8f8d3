import type { StepStats } from '../../gateway/src/decode/types.ts';
import { decodeRequest } from '../passes.ts';
import { startFakeServices } from '../services.ts';
import { median, quantile, round } from '../statistics.ts';
import { aheadOption, countOptions, type PairOptions, suite } from '../suite.ts';

/**
 * Durations in milliseconds of a draft run and a verify run: with a slower verifier (as on a GPU), with a slower
 * drafter, and with equal runs.
 */
const LATENCIES = [
  { drafter: 6, verifier: 25 },
  { drafter: 15, verifier: 10 },
  { drafter: 10, verifier: 10 },
];
/**
 * Number of concurrent warm-up sequences. Enough for V8 to have JIT-compiled the hot code of all three processes, as in
 * a server that has been running for a minute.
 */
const WARM_UP = 192;

type Options = Pick<PairOptions, 'sequences' | 'tokens' | 'ahead'>;

/**
 * Fixed-latency engines leave the processor free. The time that a step takes beyond the longer of its two engine
 * runs is therefore spent in serialisation, gRPC, queues and the decode loop. Only overlapped steps count. Each
 * latency is measured twice: with a drafter that plans branches, and with one that checks blocks, which lets the gateway
 * send steps ahead.
 */
export const overhead = suite<Options>(
  'overhead',
  'Measure the step time beyond max(draft, verify), with fixed-latency engines and no model',
  [...countOptions({ sequences: 4, tokens: 128 }), aheadOption],
  async (options) => {
    const rows = [];
    for (const latency of LATENCIES) {
      for (const checks of [false, true]) {
        rows.push(row(latency, checks, await measure(latency, checks, options)));
        console.error(JSON.stringify(rows.at(-1)));
      }
    }
    return { rows };
  },
);

type Latency = (typeof LATENCIES)[number];

/** Measures the overhead for one pair of latencies. @param checks true for a drafter that checks blocks */
async function measure(latency: Latency, checks: boolean, { sequences, tokens, ahead }: Options): Promise<StepStats[]> {
  const bench = await startFakeServices(latency, { length: 5, budget: 16, mode: 'overlap', ahead }, checks);
  const stepsOf = async (seed: number) => {
    const prompt = [1, 2, 3, seed];
    const sampling = { temperature: 1, topK: 0, topP: 1 };
    return (await decodeRequest(bench.generator, { prompt, sampling, seed: BigInt(seed), maxTokens: tokens })).steps;
  };
  try {
    await Promise.all(Array.from({ length: WARM_UP }, (_, i) => stepsOf(i)));
    const steps: StepStats[] = [];
    for (let i = 0; i < sequences; i++) steps.push(...(await stepsOf(WARM_UP + i)));
    return steps.filter((step) => step.draftMicros > 0 && step.redraftMicros === 0);
  } finally {
    await bench.stop();
  }
}

function row(latency: Latency, checks: boolean, steps: readonly StepStats[]): object {
  const longerRun = (step: StepStats) => Math.max(step.draftRunMicros, step.verifyRunMicros);
  const beyond = steps.map((step) => step.stepMicros - longerRun(step));
  return {
    draft_ms: latency.drafter,
    verify_ms: latency.verifier,
    checks,
    sent_ahead: round(steps.filter((step) => step.aheadMicros > 0).length / steps.length),
    steps: steps.length,
    overhead_us: { p10: quantile(beyond, 0.1), p50: median(beyond), p90: quantile(beyond, 0.9) },
  };
}

import type { GenerationRequest, Generator, StepFacts } from '../../gateway/src/decode/types.ts';
import { startFakeServices } from '../services.ts';
import { median, quantile, round } from '../statistics.ts';

/** Draft and verify times, milliseconds: as on a GPU, the other way round, and equal. */
const LATENCIES: readonly { readonly drafter: number; readonly verifier: number }[] = [
  { drafter: 6, verifier: 25 },
  { drafter: 15, verifier: 10 },
  { drafter: 10, verifier: 10 },
];

/** Sequences, all at once, whose steps let the compilers of the three processes settle; a server does that in its first minute. */
const WARM_UP = 192;

/**
 * What a step takes beyond its longer engine run, with engines of fixed latency that leave the processor free: serialisation, gRPC,
 * queues and the loop. Overlapped steps only; for a drafter that plans branches, and for one that checks blocks, with which steps are
 * sent ahead.
 */
export async function overhead(sequences: number, maxTokens: number, ahead: number): Promise<Record<string, unknown>> {
  const rows = [];
  const drafters = [false, true];
  for (const { checks, ...latency } of LATENCIES.flatMap((each) => drafters.map((checks) => ({ ...each, checks })))) {
    const bench = await startFakeServices(latency, { length: 5, budget: 16, mode: 'overlap', ahead }, checks);
    const steps: StepStats[] = [];
    try {
      await Promise.all(Array.from({ length: WARM_UP }, (_, i) => stepsOf(bench.generator, i, maxTokens)));
      for (let i = 0; i < sequences; i++) steps.push(...(await stepsOf(bench.generator, WARM_UP + i, maxTokens)));
    } finally {
      await bench.stop();
    }
    const overlapped = steps.filter((step) => step.draftMicros > 0 && step.redraftMicros === 0);
    const beyond = overlapped.map((step) => step.stepMicros - Math.max(step.draftRunMicros, step.verifyRunMicros));
    rows.push({
      draft_ms: latency.drafter,
      verify_ms: latency.verifier,
      checks,
      sent_ahead: round(overlapped.filter((step) => step.aheadMicros > 0).length / overlapped.length),
      steps: overlapped.length,
      overhead_us: { p10: quantile(beyond, 0.1), p50: median(beyond), p90: quantile(beyond, 0.9) },
      step_over_longer_run: round(
        median(overlapped.map((step) => step.stepMicros / Math.max(step.draftRunMicros, step.verifyRunMicros))),
      ),
    });
    console.error(JSON.stringify(rows.at(-1)));
  }
  return { rows };
}

async function stepsOf(generator: Generator, seed: number, maxTokens: number): Promise<StepStats[]> {
  const request: GenerationRequest = {
    prompt: [1, 2, 3, seed],
    sampling: { temperature: 1, topK: 0, topP: 1 },
    seed: BigInt(seed),
    maxTokens,
  };
  const steps: StepStats[] = [];
  for await (const { stats } of generator.generate(request, new AbortController().signal)) steps.push(stats);
  return steps;
}

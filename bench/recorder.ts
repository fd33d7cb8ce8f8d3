import { PairGenerator } from '../gateway/src/decode/generate.ts';
import type { Streams } from '../gateway/src/decode/ports.ts';
import type { Generator } from '../gateway/src/decode/types.ts';
import { RecordedGenerator } from '../gateway/src/observe/recorded-generator.ts';
import { TraceStore } from '../gateway/src/observe/trace-store.ts';
import { NullStreams } from './null-streams.ts';
import { median, quantile, round } from './statistics.ts';

const STEPS = 400;
const REQUESTS = 10;
const TURNS = 41;

/** What keeping a step for /traces adds to the loop, microseconds of processor time: the loop over services that take none, both ways in turn. */
export async function recorder(): Promise<{ recorder_us_per_step: { p25: number; p50: number; p75: number } }> {
  const loop = (streams: Streams) =>
    new PairGenerator(streams, { length: 5, budget: 16, mode: 'overlap', lookup: false });
  const services = new NullStreams();
  const plain = loop(services);
  const recorded = new RecordedGenerator(new TraceStore(100), services, loop);
  const added: number[] = [];
  for (let turn = 0; turn < TURNS; turn++) {
    const first = await microsPerStep(turn % 2 === 0 ? plain : recorded);
    const second = await microsPerStep(turn % 2 === 0 ? recorded : plain);
    // the first turns are the compiler's
    if (turn > 4) added.push(turn % 2 === 0 ? second - first : first - second);
  }
  const at = (q: number) => round(quantile(added, q), 1);
  return { recorder_us_per_step: { p25: at(0.25), p50: round(median(added), 1), p75: at(0.75) } };
}

async function microsPerStep(generator: Generator): Promise<number> {
  const cpu = process.cpuUsage();
  let steps = 0;
  for (let i = 0; i < REQUESTS; i++) {
    const request = {
      prompt: [1, 2, 3],
      sampling: { temperature: 1, topK: 0, topP: 1 },
      seed: BigInt(i),
      maxTokens: 1_000_000 - 10,
    };
    for await (const step of generator.generate(request, new AbortController().signal)) {
      steps++;
      if (step.stats.step >= STEPS - 1) break;
    }
  }
  const { user, system } = process.cpuUsage(cpu);
  return (user + system) / steps;
}

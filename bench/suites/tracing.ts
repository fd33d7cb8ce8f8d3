import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { startMetrics } from '@ptp/service-kit/metrics';
import { startTracing } from '@ptp/service-kit/tracing';
import { PairGenerator } from '../../gateway/src/decode/generate.ts';
import type { GenerationRequest, Generator } from '../../gateway/src/decode/types.ts';
import { gatewayMetrics, metricsObserver } from '../../gateway/src/observe/metrics.ts';
import { spanObserver } from '../../gateway/src/observe/spans.ts';
import { TraceStore } from '../../gateway/src/observe/trace-store.ts';
import { decodeRequest, REFERENCE, showProgress } from '../passes.ts';
import { median, quantile, round } from '../statistics.ts';
import { type PairBench, pairSuite } from '../suite.ts';

interface Way {
  /** Share of requests whose spans are exported. Without it, tracing is off. */
  readonly ratio?: number;
  /** True to keep requests for /traces. */
  readonly viewer?: boolean;
}
const WAYS: Readonly<Record<string, Way>> = {
  off: {},
  viewer: { viewer: true },
  '1 %': { ratio: 0.01 },
  '10 %': { ratio: 0.1 },
  all: { ratio: 1 },
  'all and viewer': { ratio: 1, viewer: true },
};
const NAMES = Object.keys(WAYS);

/** Number of concurrent streams. */
const STREAMS = 4;
/** Number of sequences in one measurement. */
const SEQUENCES = 12;
/**
 * Time in milliseconds in which the SDK sends the last batch of spans (5 s by default) and the machine becomes idle.
 */
const SETTLE_MS = 5300;

/** Measures the cost of tracing. The mode is fixed by default, because `auto` would add noise. */
export const tracing = pairSuite({
  name: 'tracing',
  description:
    'Measure throughput with tracing off, with requests kept for /traces, and with 1 %, 10 % and all requests exported',
  counts: { tokens: 128, repeats: 12 },
  mode: 'overlap',
  prepare: startSink,
  run: measureAll,
});

/** Starts a collector in a separate process. Standard variables make all services export to it. */
async function startSink(): Promise<() => void> {
  const child: ChildProcess = fork(join(import.meta.dirname, '..', 'otlp-sink.ts'));
  const [port] = await once(child, 'message');
  process.env.OTEL_EXPORTER_OTLP_ENDPOINT = `http://127.0.0.1:${port}`;
  process.env.OTEL_TRACES_SAMPLER = 'parentbased_traceidratio';
  process.env.OTEL_TRACES_SAMPLER_ARG = '0';
  return () => child.disconnect();
}

/**
 * Measures each configuration once per round, in rotating order, after one warm-up round. Only the gateway's
 * configuration changes: the services always run with tracing on, and record the requests that the gateway marks as
 * sampled.
 */
async function measureAll(bench: PairBench): Promise<object> {
  const { tokens, repeats } = bench.options;
  const rates = NAMES.map((): number[] => []);
  for (let turn = 0; turn <= repeats; turn++) {
    const requests = Array.from({ length: SEQUENCES }, (_, i): GenerationRequest => {
      const prompt = bench.prompts[(turn * SEQUENCES + i) % bench.prompts.length] ?? [];
      return { prompt, sampling: REFERENCE, seed: BigInt(turn * 1000 + i), maxTokens: tokens };
    });
    for (let i = 0; i < NAMES.length; i++) {
      const way = (i + turn) % NAMES.length;
      const rate = await tokensPerSecond(WAYS[NAMES[way] as string] as Way, bench, requests);
      if (turn > 0) rates[way]?.push(rate);
    }
    showProgress(turn, repeats);
  }
  const off = rates[NAMES.indexOf('off')] ?? [];
  const rows = NAMES.map((name, way) => {
    const own = rates[way] ?? [];
    const ratios = own.map((rate, i) => rate / (off[i] ?? Number.NaN));
    const ratio = (q: number) => round(quantile(ratios, q));
    return {
      way: name,
      tokens_per_second: round(median(own), 1),
      throughput_ratio: { p25: ratio(0.25), p50: ratio(0.5), p75: ratio(0.75) },
    };
  });
  return { streams: STREAMS, requests: repeats * SEQUENCES, rows };
}

async function tokensPerSecond({ ratio, viewer }: Way, bench: PairBench, requests: readonly GenerationRequest[]) {
  process.env.OTEL_TRACES_SAMPLER_ARG = String(ratio ?? 0);
  const tracing = ratio === undefined ? undefined : await startTracing('ptp-gateway');
  const metrics = startMetrics('ptp-gateway', bench.streams.model.modelId);
  const metered = metricsObserver(gatewayMetrics(metrics.registry));
  const observers = [spanObserver(), metered, ...(viewer ? [new TraceStore(100)] : [])];
  const generator = new PairGenerator(bench.streams, bench.limits, observers);
  const began = performance.now();
  const tokens = await decodeAll(generator, requests);
  await tracing?.stop();
  const seconds = (performance.now() - began) / 1000;
  await metrics.stop();
  if (ratio) await sleep(SETTLE_MS);
  return tokens / seconds;
}

/** Decodes all requests, STREAMS at a time. @returns the number of tokens */
async function decodeAll(generator: Generator, requests: readonly GenerationRequest[]): Promise<number> {
  const waiting = [...requests];
  let tokens = 0;
  const stream = async () => {
    for (let request = waiting.shift(); request; request = waiting.shift()) {
      tokens += (await decodeRequest(generator, request)).tokens.length;
    }
  };
  await Promise.all(Array.from({ length: STREAMS }, stream));
  return tokens;
}

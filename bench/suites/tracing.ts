import { fork } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { startMetrics } from '@ptp/service-kit/metrics';
import { startTracing } from '@ptp/service-kit/tracing';
import { PairGenerator } from '../../gateway/src/decode/generate.ts';
import type { GenerationRequest, Generator } from '../../gateway/src/decode/types.ts';
import { gatewayMetrics, MetricsObserver } from '../../gateway/src/observe/metrics.ts';
import { SpanObserver } from '../../gateway/src/observe/spans.ts';
import { TraceStore } from '../../gateway/src/observe/trace-store.ts';
import { decodeRequest, type Pass, REFERENCE } from '../passes.ts';
import type { Prompt } from '../prompts.ts';
import { median, quantile, round, sum } from '../statistics.ts';
import {
  type PairBench,
  type PairOptions,
  pairOptions,
  repeatsOption,
  suite,
  tokensOption,
  withPair,
} from '../suite.ts';
import type { SinkCounts } from '../tracing/otlp-sink.ts';
import { type ProcessorTime, processorTime } from '../tracing/processor-time.ts';

/** Tracing configurations: the share of requests whose spans are exported, and whether /traces keeps requests. */
const WAYS = {
  off: {},
  viewer: { viewer: true },
  '1 %': { ratio: 0.01 },
  '10 %': { ratio: 0.1 },
  all: { ratio: 1 },
  'all and viewer': { ratio: 1, viewer: true },
} as const satisfies Record<string, Way>;

interface Way {
  /** Value of OTEL_TRACES_SAMPLER_ARG; without it, tracing is off. */
  readonly ratio?: number;
  readonly viewer?: boolean;
}
type Name = keyof typeof WAYS;
const NAMES = Object.keys(WAYS) as Name[];

/** Number of concurrent sequences. */
const STREAMS = 4;
/** Number of sequences in one measurement. */
const SEQUENCES = 12;
/** Delay after which the SDK sends a batch of spans, by default. */
const BATCH_MS = 5000;
/** Additional waiting time, for starts and transfers to finish. */
const SETTLE_MS = 300;
/** Number of warm-up turns. */
const WARM_UP = 1;

interface Options extends PairOptions {
  readonly tokens: number;
  readonly repeats: number;
}

/** Spans go to a sink in a separate process, set by the standard variables. The mode is fixed by default, because `auto` would add noise. */
export const tracing = suite<Options>(
  'tracing',
  'Measure the cost of tracing: off, kept for /traces, and exported for 1 %, 10 % and all requests',
  [...pairOptions('overlap'), tokensOption(128), repeatsOption(12)],
  async (options) => {
    const sink = await startSink();
    try {
      return await withPair(options, (bench) => measureAll(bench, sink, options));
    } finally {
      sink.stop();
    }
  },
);

interface Sink {
  /** Requests and bytes since the last call. */
  counts(): Promise<SinkCounts>;
  stop(): void;
}

/** Starts before the services do, so that they export to it too. */
async function startSink(): Promise<Sink> {
  const child = fork(join(import.meta.dirname, '..', 'tracing', 'otlp-sink.ts'));
  const [port] = await once(child, 'message');
  const url = `http://127.0.0.1:${port}`;
  process.env.OTEL_EXPORTER_OTLP_ENDPOINT = url;
  process.env.OTEL_TRACES_SAMPLER = 'parentbased_traceidratio';
  process.env.OTEL_TRACES_SAMPLER_ARG = '0';
  const counts = async () => (await (await fetch(url)).json()) as SinkCounts;
  return { counts, stop: () => child.disconnect() };
}

/** Processor time in microseconds per step: the gateway's, the services' without their engines, and that of all three processes. */
interface Cpu {
  readonly gateway: number;
  readonly verifier: number;
  readonly drafter: number;
  readonly all: number;
}

interface Measured {
  readonly tokensPerSecond: number;
  readonly cpu: Cpu;
  readonly steps: number;
  readonly bytesSent: number;
}

/**
 * Measures each configuration once per turn, in rotating order. Only the gateway's configuration changes: the services always run with
 * tracing on, and record the requests that the gateway marks as sampled.
 */
async function measureAll(bench: PairBench, sink: Sink, { tokens, repeats }: Options): Promise<object> {
  const measured = new Map<Name, Measured[]>(NAMES.map((name) => [name, []]));
  for (let turn = 0; turn < WARM_UP + repeats; turn++) {
    const requests = Array.from({ length: SEQUENCES }, (_, i): GenerationRequest => {
      const { tokens: prompt } = bench.prompts[(turn * SEQUENCES + i) % bench.prompts.length] as Prompt;
      return { prompt, sampling: REFERENCE, seed: BigInt(turn * 1000 + i), maxTokens: tokens };
    });
    for (let i = 0; i < NAMES.length; i++) {
      const name = NAMES[(i + turn) % NAMES.length] as Name;
      const one = await measure(WAYS[name], bench, sink, requests);
      if (turn >= WARM_UP) measured.get(name)?.push(one);
    }
    process.stderr.write(`\r${turn + 1}/${WARM_UP + repeats} turns`);
  }
  process.stderr.write('\n');
  const rows = NAMES.map((name) => row(name, measured.get(name) ?? [], measured.get('off') ?? []));
  for (const line of rows) console.error(JSON.stringify(line));
  return { streams: STREAMS, requests: repeats * SEQUENCES, rows };
}

async function measure(
  way: Way,
  bench: PairBench,
  sink: Sink,
  requests: readonly GenerationRequest[],
): Promise<Measured> {
  const { ratio, viewer = false } = way;
  process.env.OTEL_TRACES_SAMPLER_ARG = String(ratio ?? 0);
  const tracing = ratio === undefined ? undefined : await startTracing('ptp-gateway');
  const metrics = startMetrics('ptp-gateway', bench.streams.model.modelId);
  const metered = new MetricsObserver(gatewayMetrics(metrics.registry));
  const observers = [new SpanObserver(), metered, ...(viewer ? [new TraceStore(100)] : [])];
  const generator = new PairGenerator(bench.streams, bench.limits, observers);
  await sleep(SETTLE_MS);
  await sink.counts();
  const services = () => [bench.pids.verifier, bench.pids.drafter].map(processorTime);
  const before = services();
  const cpu = process.cpuUsage();
  const began = performance.now();
  const passes = await decodeAll(generator, requests);
  const seconds = (performance.now() - began) / 1000;
  await tracing?.stop();
  const { user, system } = process.cpuUsage(cpu);
  if (ratio) await sleep(BATCH_MS + SETTLE_MS);
  const [verifier, drafter] = services().map((now, i) => difference(now, before[i]));
  const { bytes } = await sink.counts();
  await metrics.stop();
  const steps = sum(passes.map((pass) => pass.steps.length));
  const perStep = (micros = Number.NaN) => micros / steps;
  return {
    tokensPerSecond: sum(passes.map((pass) => pass.tokens.length)) / seconds,
    cpu: {
      gateway: perStep(user + system),
      verifier: perStep(verifier?.main),
      drafter: perStep(drafter?.main),
      all: perStep(user + system) + perStep(verifier?.all) + perStep(drafter?.all),
    },
    steps,
    bytesSent: bytes,
  };
}

function difference(now: ProcessorTime, before: ProcessorTime | undefined): ProcessorTime {
  return { main: now.main - (before?.main ?? 0), all: now.all - (before?.all ?? 0) };
}

/** Decodes all requests, STREAMS at a time. */
async function decodeAll(generator: Generator, requests: readonly GenerationRequest[]): Promise<Pass[]> {
  const waiting = [...requests];
  const passes: Pass[] = [];
  const stream = async () => {
    for (let request = waiting.shift(); request; request = waiting.shift()) {
      passes.push(await decodeRequest(generator, request));
    }
  };
  await Promise.all(Array.from({ length: STREAMS }, stream));
  return passes;
}

/** @param off the measurements without tracing, one per turn */
function row(name: Name, measured: readonly Measured[], off: readonly Measured[]): object {
  const ratios = measured.map((one, i) => one.tokensPerSecond / (off[i]?.tokensPerSecond ?? Number.NaN));
  const ratio = (q: number) => round(quantile(ratios, q));
  const cpu = (some: readonly Measured[], part: keyof Cpu) => median(some.map((one) => one.cpu[part]));
  const added = (part: keyof Cpu) =>
    median(measured.map((one, i) => one.cpu[part] - (off[i]?.cpu[part] ?? Number.NaN)));
  const processes = ['gateway', 'verifier', 'drafter'] as const;
  const byProcess = (value: (part: keyof Cpu) => number) =>
    Object.fromEntries(processes.map((part) => [part, round(value(part), 1)]));
  const steps = sum(measured.map((one) => one.steps));
  return {
    way: name,
    tokens_per_second: round(median(measured.map((one) => one.tokensPerSecond)), 1),
    throughput_ratio: { p25: ratio(0.25), p50: ratio(0.5), p75: ratio(0.75) },
    cpu_us_per_step: { ...byProcess((part) => cpu(measured, part)), all: round(cpu(measured, 'all'), 1) },
    added_cpu_us_per_step: byProcess(added),
    // the loss of throughput on a machine whose processors are all busy
    added_share: round(sum(processes.map(added)) / cpu(off, 'all'), 4),
    steps,
    bytes_sent_per_step: round(sum(measured.map((one) => one.bytesSent)) / steps, 1),
  };
}

import { fork } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { startMetrics } from '@ptp/service-kit/metrics';
import { startTracing } from '@ptp/service-kit/tracing';
import type { DraftLimits } from '../../gateway/src/decode/controller.ts';
import { PairGenerator } from '../../gateway/src/decode/generate.ts';
import type { Streams } from '../../gateway/src/decode/ports.ts';
import type { GenerationRequest, Generator } from '../../gateway/src/decode/types.ts';
import { MeteredGenerator } from '../../gateway/src/observe/metered-generator.ts';
import { gatewayMetrics } from '../../gateway/src/observe/metrics.ts';
import { RecordedGenerator } from '../../gateway/src/observe/recorded-generator.ts';
import { RecordedStreams } from '../../gateway/src/observe/recorded-streams.ts';
import { TraceStore } from '../../gateway/src/observe/trace-store.ts';
import type { Prompt } from '../prompts.ts';
import type { Bench } from '../services.ts';
import { median, quantile, round, sum } from '../statistics.ts';
import type { SinkCounts } from '../tracing/otlp-sink.ts';
import { type ProcessorTime, processorTime } from '../tracing/processor-time.ts';
import { REFERENCE } from './decode.ts';

/** Ways to trace: the share of requests that is exported, and whether /traces keeps them. */
const WAYS = {
  off: {},
  viewer: { viewer: true },
  'one percent': { ratio: 0.01 },
  'ten percent': { ratio: 0.1 },
  all: { ratio: 1 },
  'all and viewer': { ratio: 1, viewer: true },
} as const satisfies Record<string, Way>;

interface Way {
  readonly ratio?: number;
  readonly viewer?: boolean;
}
type Name = keyof typeof WAYS;

/** Processor time, microseconds for each step: the gateway's, the services' own (without their engines), and all that the three take. */
interface Cpu {
  readonly gateway: number;
  readonly verifier: number;
  readonly drafter: number;
  readonly all: number;
}

interface Pass {
  readonly tokensPerSecond: number;
  readonly cpu: Cpu;
  readonly steps: number;
  readonly sent: SinkCounts;
}

/** Sequences side by side, and all of a pass. */
const STREAMS = 4;
const PER_PASS = 12;
/** Spans wait so long for others to be sent with: the SDK's default, milliseconds. */
const BATCH_MILLIS = 5000;
/** What a start of the SDK does beside is over. */
const SETTLE_MILLIS = 300;
/** Turns before the measured ones. */
const WARM_UP = 1;

/** A sink for spans, and the variables that send them there. Start the services after it, so that they send theirs too. */
export async function startSink() {
  const child = fork(join(import.meta.dirname, '..', 'tracing', 'otlp-sink.ts'));
  const [port] = await once(child, 'message');
  const url = `http://127.0.0.1:${port}`;
  process.env.OTEL_EXPORTER_OTLP_ENDPOINT = url;
  const counts = async () => (await (await fetch(url)).json()) as SinkCounts;
  return { counts, stop: () => child.disconnect() };
}

/**
 * What tracing costs: throughput and processor time per step, each way of tracing once a turn, in turning order. The ways differ in the
 * gateway only; the services run with tracing on and record what its messages ask for, nothing where it is off.
 */
export async function tracing(
  bench: Bench,
  sink: { counts(): Promise<SinkCounts> },
  limits: DraftLimits,
  prompts: readonly Prompt[],
  maxTokens: number,
  turns: number,
): Promise<Record<string, unknown>> {
  const names = Object.keys(WAYS) as Name[];
  const passes = new Map<Name, Pass[]>(names.map((name) => [name, []]));
  for (let turn = 0; turn < WARM_UP + turns; turn++) {
    const order = names.map((_, i) => names[(i + turn) % names.length] as Name);
    const requests = Array.from({ length: PER_PASS }, (_, i): GenerationRequest => {
      const { tokens } = prompts[(turn * PER_PASS + i) % prompts.length] as Prompt;
      return { prompt: tokens, sampling: REFERENCE, seed: BigInt(turn * 1000 + i), maxTokens };
    });
    for (const name of order) {
      const measured = await pass(WAYS[name], { bench, limits, requests, sink });
      if (turn >= WARM_UP) passes.get(name)?.push(measured);
    }
    process.stderr.write(`\r${turn + 1}/${WARM_UP + turns} turns`);
  }
  process.stderr.write('\n');
  const off = passes.get('off') ?? [];
  const rows = names.map((name) => row(name, passes.get(name) ?? [], off));
  for (const line of rows) console.error(JSON.stringify(line));
  return { streams: STREAMS, requests: turns * PER_PASS, rows };
}

function row(name: Name, passes: readonly Pass[], off: readonly Pass[]) {
  const ratios = passes.map((pass, i) => pass.tokensPerSecond / (off[i]?.tokensPerSecond ?? Number.NaN));
  const middle = (of: readonly Pass[], part: keyof Cpu) => median(of.map(({ cpu }) => cpu[part]));
  const added = (part: keyof Cpu) => median(passes.map(({ cpu }, i) => cpu[part] - (off[i]?.cpu[part] ?? Number.NaN)));
  const [gateway, verifier, drafter] = [added('gateway'), added('verifier'), added('drafter')];
  const steps = sum(passes.map((pass) => pass.steps));
  return {
    way: name,
    tokens_per_second: round(median(passes.map((pass) => pass.tokensPerSecond)), 1),
    throughput_ratio: {
      p25: round(quantile(ratios, 0.25)),
      p50: round(median(ratios)),
      p75: round(quantile(ratios, 0.75)),
    },
    cpu_us_per_step: {
      gateway: round(middle(passes, 'gateway'), 1),
      verifier: round(middle(passes, 'verifier'), 1),
      drafter: round(middle(passes, 'drafter'), 1),
      all: round(middle(passes, 'all'), 1),
    },
    added_cpu_us_per_step: { gateway: round(gateway, 1), verifier: round(verifier, 1), drafter: round(drafter, 1) },
    // what it costs in throughput where all processors are busy
    added_share: round((gateway + verifier + drafter) / middle(off, 'all'), 4),
    steps,
    bytes_sent_per_step: round(sum(passes.map((pass) => pass.sent.bytes)) / steps, 1),
  };
}

/** What a pass is made over. */
interface PassParts {
  readonly bench: Bench;
  readonly limits: DraftLimits;
  readonly requests: readonly GenerationRequest[];
  readonly sink: { counts(): Promise<SinkCounts> };
}

async function pass(way: Way, { bench, limits, requests, sink }: PassParts): Promise<Pass> {
  const { ratio, viewer = false } = way;
  process.env.OTEL_TRACES_SAMPLER = 'parentbased_traceidratio';
  process.env.OTEL_TRACES_SAMPLER_ARG = String(ratio);
  const tracing = ratio === undefined ? undefined : await startTracing('ptp-gateway');
  const metrics = startMetrics('ptp-gateway', bench.streams.model.modelId);
  const loop = (streams: Streams) => new PairGenerator(streams, limits);
  const recorded = viewer
    ? new RecordedGenerator(new TraceStore(100), bench.streams, loop)
    : loop(new RecordedStreams(bench.streams));
  const generator = new MeteredGenerator(recorded, gatewayMetrics(metrics.registry), metrics.registry, true);
  await sleep(SETTLE_MILLIS);
  await sink.counts();
  const services = () => [bench.pids.verifier, bench.pids.drafter].map(processorTime);
  const before = services();
  const cpu = process.cpuUsage();
  const began = performance.now();
  const counted = await generateAll(generator, requests);
  const seconds = (performance.now() - began) / 1000;
  // what is left of the spans is sent
  await tracing?.stop();
  const { user, system } = process.cpuUsage(cpu);
  if (ratio === 1) await sleep(BATCH_MILLIS + SETTLE_MILLIS);
  const [verifier, drafter] = services().map((now, i) => difference(now, before[i]));
  const sent = await sink.counts();
  metrics.stop();
  const perStep = (micros: number | undefined) => (micros ?? Number.NaN) / counted.steps;
  return {
    tokensPerSecond: counted.tokens / seconds,
    cpu: {
      gateway: perStep(user + system),
      verifier: perStep(verifier?.main),
      drafter: perStep(drafter?.main),
      all: perStep(user + system) + perStep(verifier?.all) + perStep(drafter?.all),
    },
    steps: counted.steps,
    sent,
  };
}

function difference(now: ProcessorTime, before: ProcessorTime | undefined): ProcessorTime {
  return { main: now.main - (before?.main ?? 0), all: now.all - (before?.all ?? 0) };
}

/** So many at once, one after the other. */
async function generateAll(generator: Generator, requests: readonly GenerationRequest[]) {
  let [tokens, steps] = [0, 0];
  const waiting = [...requests];
  const stream = async () => {
    for (let request = waiting.shift(); request; request = waiting.shift()) {
      for await (const step of generator.generate(request, new AbortController().signal)) {
        tokens += step.tokens.length;
        steps++;
      }
    }
  };
  await Promise.all(Array.from({ length: STREAMS }, stream));
  return { tokens, steps };
}

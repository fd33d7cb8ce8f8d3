import { type ChildProcess, spawn } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect } from '@ptp/protocol/client';
import { DrafterService } from '@ptp/protocol/gen/ptp/v1/drafter_pb';
import { VerifierService } from '@ptp/protocol/gen/ptp/v1/verifier_pb';
import { loadManifest } from '@ptp/protocol/manifest';
import { modelInfoOf, type PairClient } from '../../gateway/src/clients/pair-client.ts';
import { PairGenerator } from '../../gateway/src/decode/generate.ts';
import type { Generator, Mode } from '../../gateway/src/decode/types.ts';
import { loadTokenizer } from '../../gateway/src/text/json-tokenizer.ts';
import { decodeMicros, decodeRequest, type Pass, REFERENCE } from '../passes.ts';
import { lineChart } from '../plot.ts';
import { loadPrompts, type Prompt } from '../prompts.ts';
import { connectServices, endAll, mainOf, serviceEnv } from '../services.ts';
import { median, round, sum } from '../statistics.ts';
import { describePair, limitsOf, type PairOptions, pairOptions, promptsOption, suite, tokensOption } from '../suite.ts';
import { type Host, HostNetwork } from './host-network.ts';

const PLOT = join(import.meta.dirname, '..', '..', 'docs', 'hosts-delay.svg');
const NAMES = ['verifier0', 'verifier1', 'drafter0', 'drafter1'] as const;
const PORT = 7100;
const START_TIMEOUT_MS = 120_000;
/** Time for the decode loop to reconnect to services that were not ready at first. */
const RECONNECT_MS = 3000;
/** More steps than fit into the longest delay, so that the delay is fully hidden. */
const AHEAD = 12;
const WAYS: Readonly<Record<string, { readonly mode: Mode; readonly ahead: number }>> = {
  'overlap, sent ahead': { mode: 'overlap', ahead: AHEAD },
  overlap: { mode: 'overlap', ahead: 0 },
  sequential: { mode: 'sequential', ahead: 0 },
  'no drafter': { mode: 'plain', ahead: 0 },
};
const WAY_NAMES = Object.keys(WAYS);
/** Milliseconds added in each direction. */
const DELAYS = [0, 1, 2, 5, 10, 20];
/** Hosts that are delayed: all of them, or only the verifiers while the drafters stay next to the gateway. */
const FAR = ['all', 'verifiers'] as const;
type Far = (typeof FAR)[number];
/** Number of concurrent streams used to show how streams are spread over the hosts. */
const SPREAD = 8;

interface Options extends PairOptions {
  readonly tokens: number;
  readonly prompts: number;
}

/** The decode loop runs in this process; two verifiers and two drafters each run in their own network namespace. */
export const hosts = suite<Options>(
  'hosts',
  'Measure the time per token by the delay between hosts, which are network namespaces. Requires root; writes docs/hosts-delay.svg',
  [...pairOptions(), tokensOption(128), promptsOption(8)],
  async (options) => {
    const model = modelInfoOf(await loadManifest(options.models));
    const room = model.contextLength - options.tokens;
    const prompts = await loadPrompts(await loadTokenizer(options.models), model.endOfText, room);
    return { ...(await describePair(options)), ...(await measure(model, prompts.slice(0, options.prompts), options)) };
  },
);

async function measure(
  model: ReturnType<typeof modelInfoOf>,
  prompts: readonly Prompt[],
  options: Options,
): Promise<object> {
  const network = HostNetwork.start(NAMES);
  const children: ChildProcess[] = [];
  let services: PairClient | undefined;
  try {
    for (const host of network.hosts) children.push(startOn(host, options.models));
    const addresses: string[] = [];
    for (const host of network.hosts) addresses.push(await network.reach(host, PORT));
    const connected = connectServices(model, addresses.slice(0, 2), addresses.slice(2));
    services = connected;
    await connected.ready(START_TIMEOUT_MS);
    await untilReady(addresses);
    await sleep(RECONNECT_MS);
    const loop = (way: object): Generator => new PairGenerator(connected, { ...limitsOf(options), ...way });
    const loops = new Map(Object.entries(WAYS).map(([name, way]) => [name, loop(way)]));
    const spread = await streamsPerHost(loop({ mode: 'overlap', ahead: 0 }), prompts, addresses);
    console.error(JSON.stringify(spread));
    const rows: Row[] = [];
    for (const far of FAR) {
      for (const delay of DELAYS) {
        for (const host of network.hosts) network.delay(host, far === 'all' || isVerifier(host) ? delay : 0);
        rows.push({ far, delay_ms: delay, ...(await timesOf(loops, prompts, options.tokens)) });
        console.error(JSON.stringify(rows.at(-1)));
      }
    }
    await plot(rows);
    return { delayed_by: network.delayedBy, spread, rows };
  } finally {
    services?.close();
    await endAll(children);
    network.stop();
  }
}

const isVerifier = ({ name }: Host) => name.includes('verifier');

function startOn(host: Host, models: string): ChildProcess {
  const kind = isVerifier(host) ? 'verifier' : 'drafter';
  const env = serviceEnv(`${host.address}:${PORT}`, { PTP_MODEL: models, PTP_PREFIX_CACHE_MB: '0' });
  const command = ['netns', 'exec', host.name, process.execPath, mainOf(kind)];
  return spawn('ip', command, { env, stdio: ['ignore', 'inherit', 'inherit'] });
}

async function openSequences(address: string, isVerifier: boolean): Promise<number> {
  const deadline = { deadlineMs: 10_000 };
  const verifier = connect(VerifierService, address, { apart: true });
  const drafter = connect(DrafterService, address, { apart: true });
  try {
    const info = await (isVerifier ? verifier.getTarget({}, deadline) : drafter.getDrafter({}, deadline));
    return info.openSequences;
  } finally {
    verifier.close();
    drafter.close();
  }
}

const openOnAll = (addresses: readonly string[]) =>
  Promise.all(addresses.map((address, i) => openSequences(address, i < 2)));

async function untilReady(addresses: readonly string[]): Promise<void> {
  for (const deadline = performance.now() + START_TIMEOUT_MS; ; await sleep(500)) {
    try {
      await openOnAll(addresses);
      return;
    } catch (error) {
      if (performance.now() > deadline) throw error;
    }
  }
}

/** Counts the open streams on each host while SPREAD streams run. */
async function streamsPerHost(generator: Generator, prompts: readonly Prompt[], addresses: readonly string[]) {
  const iterators = prompts.slice(0, SPREAD).map(({ tokens }, i) => {
    const request = { prompt: tokens, sampling: REFERENCE, seed: BigInt(i), maxTokens: 64, ignoreEndOfText: true };
    return generator.generate(request, new AbortController().signal)[Symbol.asyncIterator]();
  });
  await Promise.all(iterators.map((iterator) => iterator.next()));
  const open = await openOnAll(addresses);
  await Promise.all(iterators.map((iterator) => iterator.return?.()));
  return Object.fromEntries(NAMES.map((name, i) => [name, open[i]]));
}

/** Decodes every prompt in every way, starting with a different way for each prompt. */
async function timesOf(loops: ReadonlyMap<string, Generator>, prompts: readonly Prompt[], maxTokens: number) {
  const passes = new Map<string, Pass[]>(WAY_NAMES.map((way) => [way, []]));
  for (const [i, { tokens }] of prompts.entries()) {
    for (let turn = 0; turn < WAY_NAMES.length; turn++) {
      const way = WAY_NAMES[(i + turn) % WAY_NAMES.length] as string;
      const request = { prompt: tokens, sampling: REFERENCE, seed: BigInt(i), maxTokens, ignoreEndOfText: true };
      passes.get(way)?.push(await decodeRequest(loops.get(way) as Generator, request));
    }
  }
  const byWay = (value: (passes: readonly Pass[]) => number) =>
    Object.fromEntries([...passes].map(([way, all]) => [way, round(value(all) / 1000, 2)]));
  return {
    step_ms_p50: byWay((all) => median(all.flatMap(({ steps }) => steps.map(({ stepMicros }) => stepMicros)))),
    ms_per_token: byWay((all) => sum(all.map(decodeMicros)) / sum(all.map((pass) => pass.tokens.length))),
  };
}

type Row = Awaited<ReturnType<typeof timesOf>> & { readonly far: Far; readonly delay_ms: number };

async function plot(rows: readonly Row[]): Promise<void> {
  const panel = (title: string, far: Far) => ({
    title,
    x: { title: 'delay added each way, ms' },
    y: { title: 'ms per token' },
    series: WAY_NAMES.map((name) => ({
      name,
      points: rows
        .filter((row) => row.far === far)
        .map((row) => [row.delay_ms, row.ms_per_token[name] as number] as const),
    })),
  });
  const panels = [panel('All services far', 'all'), panel('Verifiers far, drafters near', 'verifiers')];
  await writeFile(PLOT, await lineChart(panels, 'Time per token by the delay between hosts, for each way of drafting'));
}

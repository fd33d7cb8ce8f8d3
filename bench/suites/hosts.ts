import { type ChildProcess, spawn } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect } from '@ptp/protocol/client';
import { DrafterService } from '@ptp/protocol/gen/ptp/v1/drafter_pb';
import { VerifierService } from '@ptp/protocol/gen/ptp/v1/verifier_pb';
import { loadManifest } from '@ptp/protocol/manifest';
import { modelInfoOf, type PairClient } from '../../gateway/src/clients/pair-client.ts';
import type { DraftLimits } from '../../gateway/src/decode/controller.ts';
import { PairGenerator } from '../../gateway/src/decode/generate.ts';
import type { Mode } from '../../gateway/src/decode/mode-selector.ts';
import type { Generator } from '../../gateway/src/decode/types.ts';
import { lineChart } from '../plot.ts';
import type { Prompt } from '../prompts.ts';
import { endAll, servicesAt } from '../services.ts';
import { median, round, sum } from '../statistics.ts';
import { type Pass, pass, REFERENCE } from './decode.ts';
import { type Host, HostNetwork } from './host-network.ts';

const ROOT = join(import.meta.dirname, '..', '..');
const NAMES = ['verifier0', 'verifier1', 'drafter0', 'drafter1'] as const;
const PORT = 7100;
const START_TIMEOUT_MS = 120_000;
/** Steps that may be sent ahead: more than a step's share of the longest delay here. */
const AHEAD = 12;
/** Ways to draft. */
const WAYS: Readonly<Record<string, { readonly mode: Mode; readonly ahead: number }>> = {
  ahead: { mode: 'overlap', ahead: AHEAD },
  beside: { mode: 'overlap', ahead: 0 },
  before: { mode: 'sequential', ahead: 0 },
  'no drafter': { mode: 'plain', ahead: 0 },
};
const NAMES_OF_WAYS = Object.keys(WAYS);
/** Added each way, milliseconds. */
const DELAYS = [0, 1, 2, 5, 10, 20];
/** Which hosts are so far away: all, or the verifiers only, with the drafters beside the gateway. */
const FAR = ['all', 'verifiers'] as const;
type Far = (typeof FAR)[number];
/** In which the loop's connections are made anew to those that were not up at first, milliseconds. */
const RECONNECTED_MS = 3000;
/** Streams at once that are to be spread over the hosts. */
const SPREAD = 8;

/**
 * The loop here, two verifiers and two drafters each on a host of its own (network namespaces): how streams are spread, and what a step
 * and a token take as the network's delay grows, for each way of drafting: to all of them, and to the verifiers only. Writes docs/hosts-delay.svg.
 *
 * @param models the pair's folder
 */
export async function hosts(
  models: string,
  limits: DraftLimits,
  prompts: readonly Prompt[],
  maxTokens: number,
): Promise<Record<string, unknown>> {
  const network = HostNetwork.start(NAMES);
  const children: ChildProcess[] = [];
  let services: PairClient | undefined;
  try {
    const env = { ...process.env, PTP_MODELS: models, PTP_LOG_LEVEL: 'warn', PTP_PREFIX_CACHE_MB: '0' };
    for (const host of network.hosts) children.push(startOn(host, env));
    const addresses: string[] = [];
    for (const host of network.hosts) addresses.push(await network.reach(host, PORT));
    const model = modelInfoOf(await loadManifest(models));
    const over = servicesAt(model, addresses.slice(0, 2), addresses.slice(2));
    services = over;
    await over.ready(START_TIMEOUT_MS);
    await allReady(addresses);
    await sleep(RECONNECTED_MS);
    const loops = new Map(
      Object.entries(WAYS).map(([name, way]) => [name, new PairGenerator(over, { ...limits, ...way })]),
    );
    const spread = await openOnEach(loops.get('beside') as Generator, prompts, addresses);
    console.error(JSON.stringify(spread));
    const rows: Row[] = [];
    for (const far of FAR) {
      for (const delay of DELAYS) {
        for (const host of network.hosts) network.delay(host, far === 'all' || isVerifier(host) ? delay : 0);
        rows.push({ far, delay_ms: delay, ...(await measured(loops, prompts, maxTokens)) });
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

function startOn(host: Host, env: NodeJS.ProcessEnv): ChildProcess {
  const { name, address } = host;
  const kind = isVerifier(host) ? 'verifier' : 'drafter';
  const own = { ...env, [`PTP_${kind.toUpperCase()}_ADDRESS`]: `${address}:${PORT}` };
  const command = ['netns', 'exec', name, process.execPath, join(ROOT, kind, 'src', 'main.ts')];
  return spawn('ip', command, { env: own, stdio: ['ignore', 'inherit', 'inherit'] });
}

/** Sequences that a service has open. */
async function openSequences(address: string, isVerifier: boolean): Promise<number> {
  const deadline = { deadlineMs: 10_000 };
  const verifier = connect(VerifierService, address, { apart: true });
  const drafter = connect(DrafterService, address, { apart: true });
  try {
    const state = await (isVerifier ? verifier.getTarget({}, deadline) : drafter.getDrafter({}, deadline));
    return state.openSequences;
  } finally {
    verifier.close();
    drafter.close();
  }
}

const onAll = (addresses: readonly string[]) =>
  Promise.all(addresses.map((address, i) => openSequences(address, i < 2)));

async function allReady(addresses: readonly string[]): Promise<void> {
  for (const until = performance.now() + START_TIMEOUT_MS; ; ) {
    try {
      await onAll(addresses);
      return;
    } catch (error) {
      if (performance.now() > until) throw error;
      await sleep(500);
    }
  }
}

/** Streams on each host while SPREAD of them run. */
async function openOnEach(generator: Generator, prompts: readonly Prompt[], addresses: readonly string[]) {
  const iterators = prompts
    .slice(0, SPREAD)
    .map(({ tokens }, i) =>
      generator
        .generate(
          { prompt: tokens, sampling: REFERENCE, seed: BigInt(i), maxTokens: 64, ignoreEndOfText: true },
          new AbortController().signal,
        )
        [Symbol.asyncIterator](),
    );
  await Promise.all(iterators.map((iterator) => iterator.next()));
  const open = await onAll(addresses);
  await Promise.all(iterators.map((iterator) => iterator.return?.()));
  return Object.fromEntries(NAMES.map((name, i) => [name, open[i]]));
}

/** Every prompt in all ways in turn: median step, and time per token, in milliseconds. */
async function measured(loops: ReadonlyMap<string, Generator>, prompts: readonly Prompt[], maxTokens: number) {
  const passes = new Map<string, Pass[]>(NAMES_OF_WAYS.map((way) => [way, []]));
  for (const [i, { tokens }] of prompts.entries()) {
    for (let turn = 0; turn < NAMES_OF_WAYS.length; turn++) {
      const way = NAMES_OF_WAYS[(i + turn) % NAMES_OF_WAYS.length] as string;
      const request = { prompt: tokens, sampling: REFERENCE, seed: BigInt(i), maxTokens, ignoreEndOfText: true };
      passes.get(way)?.push(await pass(loops.get(way) as Generator, request));
    }
  }
  const of = (value: (all: readonly Pass[]) => number) =>
    Object.fromEntries([...passes].map(([way, all]) => [way, round(value(all), 2)]));
  return {
    step_ms_p50: of((all) => median(all.flatMap(({ steps }) => steps.map(({ stepMicros }) => stepMicros))) / 1000),
    ms_per_token: of((all) => sum(all.map(({ micros }) => micros)) / sum(all.map((p) => p.tokens)) / 1000),
  };
}

type Figures = Awaited<ReturnType<typeof measured>>;
type Row = Figures & { readonly far: Far; readonly delay_ms: number };

async function plot(rows: readonly Row[]): Promise<void> {
  const panel = (title: string, far: Far) => ({
    title,
    x: { title: 'delay added each way, ms' },
    y: { title: 'ms per token' },
    series: NAMES_OF_WAYS.map((name) => ({
      name,
      points: rows
        .filter((row) => row.far === far)
        .map((row) => [row.delay_ms, row.ms_per_token[name] as number] as const),
    })),
  });
  const chart = await lineChart(
    [panel('All services far', 'all'), panel('Verifiers far, drafters near', 'verifiers')],
    'Time per token by the delay between hosts, for each way of drafting',
  );
  await writeFile(join(ROOT, 'docs', 'hosts-delay.svg'), chart);
}

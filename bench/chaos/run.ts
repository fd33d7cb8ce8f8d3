import { setTimeout as sleep } from 'node:timers/promises';
import { Random } from '../random.ts';
import { machine, quantile } from '../statistics.ts';
import { askQuestions, keepAsking, newTally, type Question, type Tally } from './clients.ts';
import type { Fleet } from './fleet.ts';
import { injectFaults } from './schedule.ts';
import { type Usage, usageOf } from './usage.ts';

/** Interval in milliseconds between samples of counts and memory. */
const WATCH_MS = 10_000;
/** Maximum increase of the gateway's number of open files and sockets over a run. */
const HANDLES_LEFT = 100;
/** Number of right answers after which an added replica must have got a stream. Earlier, chance can keep it idle. */
const ANSWERS_TO_USE = 20;

type Counts = 'minutes' | 'seed' | 'streams' | 'pause' | 'questions' | 'loopDelay';
export type RunOptions = Readonly<Record<Counts, number> & { faults: boolean; only: string }>;

/** Runs clients and faults. Returns the result, the broken promises, and samples of memory. */
export async function run(fleet: Fleet, options: RunOptions) {
  const { seed, minutes } = options;
  const questions = await askQuestions(fleet.url, options.questions, new Random(seed));
  console.log(`${questions.length} questions with their answers`);
  const before = fleet.gateway.usage.handles;
  fleet.resetDelays();
  const { faults, usage } = await underLoad(fleet, questions, options);
  const { delays, tally, replicas } = fleet;
  const held = delays.gateway.held.p999;
  await fleet.ready();
  const left = await sequencesLeft(fleet);
  const handles = fleet.gateway.usage.handles - before;
  const leftAfterCrash = await crashGateway(fleet, questions);
  const { gaps, refused, errors, ...counts } = tally;
  const gap = (q: number) => Math.round(quantile(gaps, q));
  const promises = {
    ...promisesOf(tally, faults.length, options.faults),
    sequences_left: left,
    sequences_left_after_gateway_crash: leftAfterCrash,
    handles_left: handles > HANDLES_LEFT ? handles : 0,
    loop_held_above_bound: held > options.loopDelay ? held : 0,
    replicas_unused: replicas.used === 0 && replicas.answers >= ANSWERS_TO_USE ? replicas.added : 0,
    crashes: fleet.crashes.length,
    broken: fleet.broken.length,
  };
  const problems = [...new Set([...fleet.crashes, ...fleet.broken])];
  const result = {
    suite: options.faults ? 'chaos' : 'soak',
    machine: machine(),
    minutes,
    seed,
    faults: faults.length,
    ...counts,
    refused,
    errors,
    gap_ms: { p50: gap(0.5), p90: gap(0.9), p99: gap(0.99), max: gap(1) },
    ...promises,
    loop_ms: delays,
    gateway_handles: { before, after: before + handles },
    replicas,
    ...(problems.length > 0 && { problems }),
    ...(options.faults
      ? { by_fault: countsOf(faults) }
      : { usage: { first: usage[1], middle: usage[usage.length >> 1], last: usage.at(-1) } }),
  };
  const kept = Object.values(promises).every((count) => count === 0);
  return { result, kept, usage };
}

/** Returns the counts that must be 0. `nothing_right` and `no_faults` are 1 if the run proves nothing. */
export function promisesOf({ wrong, lost, failed, right }: Tally, faults: number, injecting: boolean) {
  return { wrong, lost, failed, nothing_right: Number(right === 0), no_faults: Number(injecting && faults === 0) };
}

function countsOf(names: readonly string[]): Record<string, number> {
  return Object.fromEntries([...Map.groupBy(names, (name) => name)].map(([name, all]) => [name, all.length]));
}

async function underLoad(fleet: Fleet, questions: readonly Question[], options: RunOptions) {
  const { seed, minutes } = options;
  const [faults, usage]: [string[], Usage[]] = [[], []];
  const { tally } = fleet;
  const over = new AbortController();
  const clients = Array.from({ length: options.streams }, (_, i) =>
    keepAsking(fleet.url, questions, new Random(seed * 1000 + i), tally, over.signal),
  );
  const onFault = (fault: string) => faults.push(fault);
  const injecting = options.faults && injectFaults(fleet, new Random(seed + 7), options, onFault, over.signal);
  const began = performance.now();
  const until = began + minutes * 60_000;
  while (performance.now() < until) {
    await sleep(Math.min(WATCH_MS, until - performance.now()));
    usage.push({ minutes: (performance.now() - began) / 60_000, by: usageOf(fleet) });
    const { streams, right, wrong, lost, failed, tokens } = tally;
    const counts = `${right} right (${tokens} tokens), ${wrong} wrong, ${lost} lost, ${failed} failed`;
    console.log(`${faults.length} faults, ${streams} streams: ${counts}`);
  }
  over.abort();
  await injecting;
  await Promise.all(clients);
  return { faults, usage };
}

/** Returns the number of sequences that stay open after the last stream has ended. */
async function sequencesLeft(fleet: Fleet): Promise<number> {
  for (let attempt = 0; attempt < 100; attempt++) {
    // A service that is restarting does not answer yet.
    if ((await fleet.openSequences().catch(() => undefined)) === 0) return 0;
    await sleep(200);
  }
  return fleet.openSequences();
}

/** Kills the gateway under load. The services must then end its sequences. @returns number of sequences that stay open */
async function crashGateway(fleet: Fleet, questions: readonly Question[]): Promise<number> {
  const over = new AbortController();
  const streams = Array.from({ length: 4 }, (_, i) =>
    keepAsking(fleet.url, questions, new Random(i), newTally(), over.signal),
  );
  await sleep(1000);
  over.abort();
  await fleet.gateway.end('SIGKILL');
  await Promise.all(streams);
  return sequencesLeft(fleet);
}

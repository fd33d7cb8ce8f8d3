/**
 * `npm run chaos` and `npm run soak`: decode texts that are known in advance while faults are injected (soak injects
 * none). Each prints one line of JSON, and exits with 1 if a promise was broken.
 */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Command, InvalidArgumentError, Option } from 'commander';
import { lineChart } from '../plot.ts';
import { Random } from '../random.ts';
import { saveResult } from '../results.ts';
import { machine, quantile } from '../statistics.ts';
import { integerOption } from '../suite.ts';
import { askQuestions, keepAsking, newTally, type Question } from './clients.ts';
import { FAULT_NAMES, injectFaults } from './faults.ts';
import { type Fleet, type Member, startFleet } from './fleet.ts';

const ROOT = join(import.meta.dirname, '..', '..');
const PLOT = join(ROOT, 'docs', 'reliability-soak.svg');
/** Interval in milliseconds between samples of counts and memory. */
const WATCH_MS = 10_000;

type Counts = 'minutes' | 'seed' | 'streams' | 'pause' | 'verifiers' | 'drafters' | 'questions';
type Options = Readonly<Record<Counts, number> & { faults: boolean; only: string; models: string; save?: boolean }>;

const positive = (text: string): number => {
  if (Number(text) > 0) return Number(text);
  throw new InvalidArgumentError('It must be a number above 0.');
};

const partOfFault = (text: string): string => {
  if (FAULT_NAMES.some((name) => name.includes(text))) return text;
  throw new InvalidArgumentError(`It must be a part of the name of a fault:\n${FAULT_NAMES.join('\n')}`);
};

await new Command('npm run chaos --')
  .configureHelp({ helpWidth: 100 })
  .description(
    'Starts a gateway, verifiers and drafters as processes that communicate over TCP with mutual TLS. Every second verifier and drafter has its engine in another process. Kills and stops the services and engines, cuts and delays their connections and corrupts their bytes, while they decode texts that are known in advance. No text may be wrong, and no started stream may be lost.',
  )
  .addOption(new Option('--minutes <n>', 'duration').argParser(positive).default(2))
  .addOption(integerOption('--seed <n>', 'seed of the requests and of the fault schedule', 1))
  .addOption(integerOption('--streams <n>', 'concurrent streams', 6))
  .addOption(integerOption('--pause <ms>', 'mean time between faults', 700))
  .addOption(
    new Option('--only <text>', 'inject only faults whose name contains this text, such as `engine`')
      .argParser(partOfFault)
      .default(''),
  )
  .option('--no-faults', 'inject no faults; record memory and open files under load (npm run soak)')
  .addOption(integerOption('--verifiers <n>', 'number of verifiers', 2))
  .addOption(integerOption('--drafters <n>', 'number of drafters', 2))
  .addOption(integerOption('--questions <n>', 'number of different requests', 60))
  .addOption(
    new Option('--models <dir>', 'model folder; the default model has a drafter that checks blocks').default(
      join(ROOT, 'test', 'models', 'tiny-feature'),
      'test/models/tiny-feature',
    ),
  )
  .option('--save', 'keep the result in bench/results; after a soak, also plot its memory in docs/reliability-soak.svg')
  .action(async (options: Options) => {
    const fleet = await startFleet(options.models, options);
    try {
      process.exitCode = (await run(fleet, options)) ? 0 : 1;
    } finally {
      await fleet.stop();
    }
  })
  .parseAsync();

/** Runs clients and faults. @returns true if no guarantee of the server was broken */
async function run(fleet: Fleet, options: Options): Promise<boolean> {
  const { seed, minutes } = options;
  console.log(machine());
  const questions = await askQuestions(fleet.url, options.questions, new Random(seed));
  console.log(`${questions.length} questions with their answers`);
  const { faults, tally, held } = await underLoad(fleet, questions, options);
  await fleet.ready();
  const left = await sequencesLeft(fleet);
  const leftAfterCrash = await crashGateway(fleet, questions);
  const { gaps, refused, errors, ...counts } = tally;
  const gap = (q: number) => Math.round(quantile(gaps, q));
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
    sequences_left: left,
    sequences_left_after_gateway_crash: leftAfterCrash,
    ...(options.faults
      ? {
          by_fault: Object.fromEntries(
            [...Map.groupBy(faults, (fault) => fault)].map(([name, all]) => [name, all.length]),
          ),
        }
      : { held: { first: held[1], middle: held[held.length >> 1], last: held.at(-1) } }),
  };
  if (options.save) {
    await saveResult(result);
    if (!options.faults) await writeFile(PLOT, await memoryChart(held));
  }
  console.log(JSON.stringify(result));
  return tally.wrong + tally.lost + left + leftAfterCrash === 0;
}

async function underLoad(fleet: Fleet, questions: readonly Question[], options: Options) {
  const { seed, minutes } = options;
  const [faults, tally, held]: [string[], ReturnType<typeof newTally>, Held[]] = [[], newTally(), []];
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
    held.push({ minutes: (performance.now() - began) / 60_000, by: memoryOf(fleet) });
    const { streams, right, wrong, lost, tokens } = tally;
    console.log(
      `${faults.length} faults, ${streams} streams: ${right} right (${tokens} tokens), ${wrong} wrong, ${lost} lost`,
    );
  }
  over.abort();
  await injecting;
  await Promise.all(clients);
  return { faults, tally, held };
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

/** A sample of the memory that the fleet uses. */
interface Held {
  /** Duration since the start in minutes. */
  readonly minutes: number;
  /** Memory and open files of each process. */
  readonly by: Readonly<Record<string, Member['usage']>>;
}

function memoryOf({ gateway, verifiers, drafters }: Fleet): Held['by'] {
  return {
    gateway: gateway.usage,
    ...Object.fromEntries(verifiers.map(({ member }, i) => [`verifier ${i}`, member.usage])),
    ...Object.fromEntries(drafters.map(({ member }, i) => [`drafter ${i}`, member.usage])),
  };
}

function memoryChart(held: readonly Held[]): Promise<string> {
  const series = Object.keys(held[0]?.by ?? {}).map((name) => ({
    name,
    points: held.map(({ minutes, by }): [number, number] => [minutes, by[name]?.mb ?? 0]),
  }));
  const [x, y] = [{ title: 'minutes' }, { title: 'resident memory, MB' }];
  return lineChart([{ title: 'Memory under load', x, y, series }], 'Resident memory of the processes during a soak');
}

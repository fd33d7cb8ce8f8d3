/** `npm run chaos` and `npm run soak -- [options]`: faults, or none, against streams whose texts are known; ends with one line of JSON, and with 1 if a promise was broken. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { lineChart } from '../plot.ts';
import { Random } from '../random.ts';
import { keep } from '../results.ts';
import { machine, quantile } from '../statistics.ts';
import { askQuietly, keepAsking, newTally } from './clients.ts';
import { injectFaults } from './faults.ts';
import { Fleet } from './fleet.ts';

const USAGE = `npm run chaos -- [options]

Starts a gateway, verifiers and drafters as processes, over TCP with mutual TLS, asks questions whose answers are known, and kills, stops, cuts off, delays
and garbles the services in the meantime. No text may be wrong, and no stream may be lost that has begun.

options
  --minutes N      how long (2)
  --seed N         of the questions and the schedule of faults (1)
  --streams N      at once (6)
  --pause MS       mean time between faults (700)
  --no-faults      only load, with what the processes hold every 10 s (npm run soak)
  --verifiers N    (2)      --drafters N    (2)
  --questions N    different ones (60)
  --models DIR     the pair (test/models/tiny-feature, whose drafter checks blocks)
  --save           keep the result in bench/results, and a soak's memory in docs/reliability-soak.svg`;

const PLOT = join(import.meta.dirname, '..', '..', 'docs', 'reliability-soak.svg');

const { values } = parseArgs({
  options: {
    help: { type: 'boolean' },
    minutes: { type: 'string', default: '2' },
    seed: { type: 'string', default: '1' },
    streams: { type: 'string', default: '6' },
    pause: { type: 'string', default: '700' },
    'no-faults': { type: 'boolean' },
    verifiers: { type: 'string', default: '2' },
    drafters: { type: 'string', default: '2' },
    questions: { type: 'string', default: '60' },
    models: { type: 'string', default: join(import.meta.dirname, '..', '..', 'test', 'models', 'tiny-feature') },
    save: { type: 'boolean', default: false },
  },
});

async function main(): Promise<number> {
  if (values.help) {
    console.log(USAGE);
    return 0;
  }
  const number = (name: 'minutes' | 'seed' | 'streams' | 'pause' | 'verifiers' | 'drafters' | 'questions') => {
    const value = Number(values[name]);
    if (!Number.isFinite(value) || value <= 0)
      throw new Error(`--${name} must be a number above 0, got ${values[name]}`);
    return value;
  };
  const [minutes, seed] = [number('minutes'), number('seed')];
  console.log(machine());
  const fleet = await Fleet.start(values.models, number('verifiers'), number('drafters'));
  try {
    const questions = await askQuietly(fleet.url, number('questions'), new Random(seed));
    console.log(`${questions.length} questions with their answers`);
    const tally = newTally();
    const faults: Record<string, number> = {};
    const over = new AbortController();
    const { signal } = over;
    const clients = Array.from({ length: number('streams') }, (_, i) =>
      keepAsking(fleet.url, questions, new Random(seed * 1000 + i), tally, signal),
    );
    const onFault = (kind: string, fault: string) => {
      const name = `${kind} ${fault}`;
      faults[name] = (faults[name] ?? 0) + 1;
    };
    const injecting = values['no-faults']
      ? Promise.resolve()
      : injectFaults(fleet, new Random(seed + 7), number('pause'), onFault, signal);
    const held: { readonly minutes: number; readonly by: Held }[] = [];
    const began = performance.now();
    const count = () => Object.values(faults).reduce((sum, n) => sum + n, 0);
    const until = performance.now() + minutes * 60_000;
    while (performance.now() < until) {
      await sleep(Math.min(10_000, until - performance.now()));
      held.push({ minutes: (performance.now() - began) / 60_000, by: heldBy(fleet) });
      const { streams, right, wrong, lost, tokens } = tally;
      console.log(
        `${count()} faults, ${streams} streams: ${right} right (${tokens} tokens), ${wrong} wrong, ${lost} lost`,
      );
    }
    over.abort();
    await injecting;
    await Promise.all(clients);
    await fleet.ready();
    const leftAfterStreams = await drained(fleet);
    const leftAfterCrash = await crashGateway(fleet, questions);
    const { gaps, refused, errors, ...counts } = tally;
    const gap = (q: number) => Math.round(quantile(gaps, q));
    const result = {
      suite: values['no-faults'] ? 'soak' : 'chaos',
      machine: machine(),
      minutes,
      seed,
      faults: count(),
      ...counts,
      refused,
      errors,
      gap_ms: { p50: gap(0.5), p90: gap(0.9), p99: gap(0.99), max: gap(1) },
      sequences_left: leftAfterStreams,
      sequences_left_after_gateway_crash: leftAfterCrash,
      ...(values['no-faults']
        ? { held: { first: held[1], middle: held[held.length >> 1], last: held.at(-1) } }
        : { by_fault: faults }),
    };
    if (values.save) {
      await keep(result);
      if (values['no-faults']) await writeFile(PLOT, await memoryChart(held));
    }
    console.log(JSON.stringify(result));
    const broken = tally.wrong + tally.lost + leftAfterStreams + leftAfterCrash;
    return broken === 0 ? 0 : 1;
  } finally {
    await fleet.stop();
  }
}

/** What each process holds: resident memory in MB, open files and sockets. */
type Held = Readonly<Record<string, { readonly mb: number; readonly handles: number }>>;

function heldBy(fleet: Fleet): Held {
  const of = ({ memory, handles }: { memory: number; handles: number }) => ({ mb: Math.round(memory / 1e6), handles });
  return {
    gateway: of(fleet.gateway),
    ...Object.fromEntries(fleet.verifiers.map(({ member }, i) => [`verifier ${i}`, of(member)])),
    ...Object.fromEntries(fleet.drafters.map(({ member }, i) => [`drafter ${i}`, of(member)])),
  };
}

/** Resident memory of each process over the minutes. */
function memoryChart(held: readonly { readonly minutes: number; readonly by: Held }[]): Promise<string> {
  const series = Object.keys(held[0]?.by ?? {}).map((name) => ({
    name,
    points: held.map(({ minutes, by }): [number, number] => [minutes, by[name]?.mb ?? 0]),
  }));
  const panel = {
    title: 'Memory under load',
    x: { title: 'minutes' },
    y: { title: 'resident memory, MB' },
    series,
  };
  return lineChart([panel], 'Resident memory of the processes during a soak');
}

/** Sequences that are still open some time after the last stream. */
async function drained(fleet: Fleet): Promise<number> {
  // one that is just being started again cannot be asked yet
  for (let attempt = 0; attempt < 100; attempt++) {
    if ((await fleet.openSequences().catch(() => undefined)) === 0) return 0;
    await sleep(200);
  }
  return fleet.openSequences();
}

/** Kills the gateway under load: its work in the services must end with it. */
async function crashGateway(fleet: Fleet, questions: Parameters<typeof keepAsking>[1]): Promise<number> {
  const over = new AbortController();
  const streams = Array.from({ length: 4 }, (_, i) =>
    keepAsking(fleet.url, questions, new Random(i), newTally(), over.signal),
  );
  await sleep(1000);
  over.abort();
  await fleet.gateway.end('SIGKILL');
  await Promise.all(streams);
  return drained(fleet);
}

process.exitCode = await main();

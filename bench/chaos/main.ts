/**
 * `npm run chaos` and `npm run soak`: decode texts that are known in advance while faults are injected (soak injects
 * none). Each prints one line of JSON, and exits with 1 if a promise was broken.
 */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Command, InvalidArgumentError, Option } from 'commander';
import { saveResult } from '../results.ts';
import { machine } from '../statistics.ts';
import { integerOption } from '../suite.ts';
import { FAULT_NAMES, skipped } from './faults/index.ts';
import { Fleet, type FleetOptions } from './fleet.ts';
import { type RunOptions, run } from './run.ts';
import { memoryChart } from './usage.ts';

const ROOT = join(import.meta.dirname, '..', '..');
const PLOT = join(ROOT, 'docs', 'reliability-soak.svg');
type Options = RunOptions & FleetOptions & { readonly save?: boolean };

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
    'Starts a gateway, verifiers and drafters as processes that communicate over TCP with mutual TLS. Every second verifier and drafter has its engine in another process. Kills and stops the services and engines, cuts and delays their connections and corrupts their bytes, adds and removes replicas, replaces certificates before their keys, and attacks the gateway with resets, hang-ups and stalled bodies, while they decode texts that are known in advance. No text may be wrong, no started stream may be lost, and no request may get a status such as 500.',
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
  .addOption(
    integerOption(
      '--loop-delay <ms>',
      "maximum time (p99.9) for which the gateway's event loop is held, without the time in which it waits for a core",
      30,
    ),
  )
  .addOption(
    new Option('--verify-timeout <s>', 'time after which the gateway gives up a verifier; more on a busy machine')
      .argParser(positive)
      .default(1.5),
  )
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
    console.log(machine());
    for (const fault of options.faults ? skipped : []) console.log(`skipped: ${fault}`);
    const fleet = await Fleet.start(options);
    try {
      const { result, kept, usage } = await run(fleet, options);
      if (options.save) {
        await saveResult(result);
        if (!options.faults) await writeFile(PLOT, await memoryChart(usage));
      }
      console.log(JSON.stringify(result));
      process.exitCode = kept ? 0 : 1;
    } finally {
      await fleet.stop();
    }
  })
  .parseAsync();
// Sockets of faults may still be open.
process.exit();

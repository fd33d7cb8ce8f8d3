import { join } from 'node:path';
import { loadManifest } from '@ptp/protocol/manifest';
import { Command, InvalidArgumentError, Option } from 'commander';
import { DRAFT_BUDGET, STEPS_AHEAD } from '../gateway/src/decode/controller.ts';
import type { DraftLimits } from '../gateway/src/decode/types.ts';
import { DRAFT_MODES, gatewaySettings } from '../gateway/src/settings.ts';
import { loadTextModel } from '../gateway/src/text/text-model.ts';
import { loadPrompts } from './prompts.ts';
import { saveResult } from './results.ts';
import { type Bench, type ServiceOptions, startServices } from './services.ts';
import { machine } from './statistics.ts';

/**
 * Creates a command that runs a measurement. It prints the machine to stderr, and the result as one line of JSON to
 * stdout.
 *
 * @param run function that returns a promise of the figures, and sets `process.exitCode` if one of the server's
 *   guarantees was broken
 */
export function suite<Options extends object>(
  name: string,
  description: string,
  options: readonly Option[],
  run: (options: Options) => Promise<object>,
): Command {
  const command = new Command(name).description(description).configureHelp({ helpWidth: 100 });
  for (const option of options) command.addOption(option);
  command.option('--save', 'keep the result in bench/results, where `report` finds it');
  return command.action(async (given: Options & { readonly save?: boolean }) => {
    console.error(machine());
    const result = { suite: name, machine: machine(), ...(await run(given)) };
    if (given.save) await saveResult(result);
    console.log(JSON.stringify(result));
  });
}

/** Parses an option whose value must be an integer of at least `min`. */
export const integer =
  (min = 1) =>
  (text: string): number => {
    const value = Number(text);
    if (Number.isInteger(value) && value >= min) return value;
    throw new InvalidArgumentError(`It must be an integer of at least ${min}.`);
  };

export const integerOption = (flags: string, description: string, fallback: number, min = 1): Option =>
  new Option(flags, description).argParser(integer(min)).default(fallback);

/** Numbers that determine how long a suite runs. */
const COUNTS = {
  tokens: 'tokens to generate per sequence',
  prompts: 'held-out prompts to decode',
  repeats: 'measurements per row',
  sequences: 'sequences to decode; `exact` decodes them with each sampling setting',
};
type Counts = Record<keyof typeof COUNTS, number>;

/** Returns options for the counts of a suite, with their defaults. */
export const countOptions = (counts: Partial<Counts>): Option[] =>
  (Object.keys(counts) as (keyof Counts)[]).map((name) =>
    integerOption(`--${name} <n>`, COUNTS[name], counts[name] as number),
  );

/** Options of a suite that runs a model's engine in its own process. */
export interface EngineOptions {
  readonly models: string;
  readonly threads: number;
}

export const engineOptions = (models: string): Option[] => [
  new Option('--models <path>', models).makeOptionMandatory(),
  integerOption('--threads <n>', 'threads of the engine', 1),
];

export const aheadOption: Option = integerOption(
  '--ahead <n>',
  'maximum number of steps sent before the outcome of the previous step is known; 0 sends none early',
  STEPS_AHEAD,
  0,
);

/** Options of a suite that decodes with a pair. Only the counts that the suite declares are present. */
export interface PairOptions extends Counts {
  readonly models: string;
  readonly draftModel?: string;
  readonly length: number;
  readonly budget: number;
  readonly mode: DraftLimits['mode'];
  readonly ahead: number;
  readonly lookup: boolean;
  /** Numbers of concurrent streams (`load`). */
  readonly streams: readonly number[];
}

const pairOptions = (mode: DraftLimits['mode']): Option[] => [
  new Option('--models <path>', 'model folder or GGUF file').default(
    join(import.meta.dirname, '..', 'models', 'default'),
    'models/default',
  ),
  new Option('--draft-model <dir>', "folder of a complete model that drafts instead of the pair's drafter"),
  integerOption('--length <n>', 'maximum block length in tokens', gatewaySettings.draftLength.default),
  integerOption('--budget <n>', 'tokens per draft call', DRAFT_BUDGET),
  new Option('--mode <mode>', 'drafting mode').choices(DRAFT_MODES).default(mode),
  aheadOption,
  new Option('--no-lookup', 'disable prompt lookup; only the drafter proposes tokens'),
];

export interface PairBench extends Bench {
  readonly limits: DraftLimits;
  /** Tokens of each prompt. */
  readonly prompts: readonly number[][];
  readonly options: PairOptions;
}

interface PairSuite {
  readonly name: string;
  readonly description: string;
  readonly counts: Partial<Counts>;
  readonly mode?: DraftLimits['mode'];
  /** Options of the suite, in addition to the options for the pair and the counts. */
  readonly options?: readonly Option[];
  /** Services to start. Default: services without a prefix cache. */
  readonly services?: ServiceOptions;
  /** Runs before the services start. @returns a function that undoes it */
  readonly prepare?: () => Promise<() => void>;
  /** Runs the measurement. @returns the figures */
  readonly run: (bench: PairBench) => Promise<object>;
}

/** Creates a suite that runs on a drafter and a verifier process. Its result includes fields that describe the pair. */
export function pairSuite(parts: PairSuite): Command {
  const { name, description, counts, mode = gatewaySettings.draftMode.default, options = [] } = parts;
  const all = [...pairOptions(mode), ...countOptions(counts), ...options];
  return suite<PairOptions>(name, description, all, async (given) => {
    const undo = await parts.prepare?.();
    try {
      return await withPair(given, parts);
    } finally {
      undo?.();
    }
  });
}

/** Number of tokens in the context that prompts leave free, for suites without --tokens. */
const ROOM = 128;

async function withPair(options: PairOptions, { services, run }: PairSuite): Promise<object> {
  const { models, draftModel, length, budget, mode, lookup, ahead } = options;
  const limits = { length, budget, mode, lookup, ahead };
  const bench = await startServices(models, limits, { draftModel, ...services });
  try {
    const { endOfText, contextLength } = bench.generator.model;
    const room = contextLength - (options.tokens ?? ROOM);
    const manifest = await loadManifest(models);
    const { tokenizer } = await loadTextModel(models, manifest);
    const prompts = await loadPrompts(tokenizer, endOfText, room);
    return {
      pair: manifest.created,
      ...limits,
      ...(draftModel && { draft_model: (await loadManifest(draftModel)).id }),
      ...(await run({ ...bench, limits, options, prompts: prompts.slice(0, options.prompts) })),
    };
  } finally {
    await bench.stop();
  }
}

import { join } from 'node:path';
import { loadManifest } from '@ptp/protocol/manifest';
import { Command, InvalidArgumentError, Option } from 'commander';
import { DRAFT_BUDGET, STEPS_AHEAD } from '../gateway/src/decode/controller.ts';
import type { DraftLimits } from '../gateway/src/decode/types.ts';
import { DRAFT_MODES, gatewaySettings } from '../gateway/src/settings.ts';
import { loadTokenizer } from '../gateway/src/text/json-tokenizer.ts';
import { loadPrompts, type Prompt } from './prompts.ts';
import { saveResult } from './results.ts';
import { type Bench, startServices } from './services.ts';
import { machine } from './statistics.ts';

/**
 * A command that runs a measurement. It prints the machine to stderr, and the result as one line of JSON to stdout.
 *
 * @param run resolves with the figures, and sets `process.exitCode` if a promise was broken
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

/** Parser of an option whose value must be an integer of at least `min`. */
export const integer =
  (min = 1) =>
  (text: string): number => {
    const value = Number(text);
    if (Number.isInteger(value) && value >= min) return value;
    throw new InvalidArgumentError(`It must be an integer of at least ${min}.`);
  };

/** An option that takes an integer. */
export const integerOption = (flags: string, description: string, fallback: number, min = 1): Option =>
  new Option(flags, description).argParser(integer(min)).default(fallback);

export const tokensOption = (fallback: number): Option =>
  integerOption('--tokens <n>', 'tokens to generate per sequence', fallback);

export const promptsOption = (fallback: number): Option =>
  integerOption('--prompts <n>', 'held-out prompts to decode', fallback);

export const repeatsOption = (fallback: number): Option =>
  integerOption('--repeats <n>', 'measurements per row', fallback);

export const aheadOption: Option = integerOption(
  '--ahead <n>',
  'steps sent before the outcome of the previous step is known; 0 disables this',
  STEPS_AHEAD,
  0,
);

export interface PairOptions {
  readonly models: string;
  readonly draftModel?: string;
  readonly length: number;
  readonly budget: number;
  readonly mode: DraftLimits['mode'];
  readonly ahead: number;
  readonly lookup: boolean;
  readonly tokens?: number;
}

/** Options shared by all suites that decode with a pair. */
export const pairOptions = (mode: DraftLimits['mode'] = gatewaySettings.draftMode.default): Option[] => [
  new Option('--models <dir>', 'model folder').default(
    join(import.meta.dirname, '..', 'models', 'default'),
    'models/default',
  ),
  new Option('--draft-model <dir>', "folder of a complete model to draft with, in place of the pair's drafter"),
  integerOption('--length <n>', 'maximum block length in tokens', gatewaySettings.draftLength.default),
  integerOption('--budget <n>', 'tokens per draft call', DRAFT_BUDGET),
  new Option('--mode <mode>', 'drafting mode').choices(DRAFT_MODES).default(mode),
  aheadOption,
  new Option('--no-lookup', 'disable prompt lookup; only the drafter proposes tokens'),
];

export const limitsOf = ({ length, budget, mode, lookup, ahead }: PairOptions): DraftLimits => ({
  length,
  budget,
  mode,
  lookup,
  ahead,
});

/** Fields of a result that identify the pair and its limits. */
export async function describePair({ models, draftModel, ...options }: PairOptions): Promise<object> {
  return {
    pair: (await loadManifest(models)).created,
    ...limitsOf({ models, ...options }),
    ...(draftModel && { draft_model: (await loadManifest(draftModel)).id }),
  };
}

/** Number of tokens that prompts leave free in the context, for suites without --tokens. */
const ROOM = 128;

export interface PairBench extends Bench {
  readonly limits: DraftLimits;
  readonly prompts: readonly Prompt[];
}

/** Starts a drafter and a verifier process and runs a suite on them. @returns the figures, and fields that describe the pair */
export async function withPair(
  options: PairOptions,
  run: (bench: PairBench) => Promise<object>,
  services: { readonly prefixCache?: boolean; readonly draftModel?: string | undefined } = options,
): Promise<object> {
  const limits = limitsOf(options);
  const { prefixCache = false, draftModel } = services;
  const bench = await startServices(options.models, limits, prefixCache, draftModel);
  try {
    const { endOfText, contextLength } = bench.generator.model;
    const room = contextLength - (options.tokens ?? ROOM);
    const prompts = await loadPrompts(await loadTokenizer(options.models), endOfText, room);
    return { ...(await describePair(options)), ...(await run({ ...bench, limits, prompts })) };
  } finally {
    await bench.stop();
  }
}

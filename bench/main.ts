/** `npm run bench -- SUITE [options]`; each suite ends with one line of JSON. */
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { loadManifest } from '@ptp/protocol/manifest';
import { modelInfoOf } from '../gateway/src/clients/pair-client.ts';
import type { DraftLimits } from '../gateway/src/decode/controller.ts';
import { gatewaySettings } from '../gateway/src/settings.ts';
import { loadTokenizer } from '../gateway/src/text/tokenizer.ts';
import { loadPrompts, type Prompt } from './prompts.ts';
import { keep } from './results.ts';
import { type Bench, startServices } from './services.ts';
import { machine } from './statistics.ts';
import { context } from './suites/context.ts';
import { decode } from './suites/decode.ts';
import { type ExactResult, exact } from './suites/exact.ts';
import { hosts } from './suites/hosts.ts';
import { load } from './suites/load.ts';
import { overhead } from './suites/overhead.ts';
import { peers } from './suites/peers.ts';
import { prefill } from './suites/prefill.ts';
import { scaling } from './suites/scaling.ts';
import { startSink, tracing } from './suites/tracing.ts';

const USAGE = `npm run bench -- SUITE [options]

suites
  exact      compares texts with the drafter on and off, alone and eight at once, token by token
  decode     speed with the drafter on and off, interleaved, on held-out prompts
  load       throughput and time per token with 1, 2, 4 .. streams at once, drafter on and off
  context    time of a step by the length of the context
  prefill    time to the first token without the drafter by the length of the prompt, new ones and known ones
  scaling    simulates many sequences on several GPUs, in virtual time (no model), and writes the plots of docs/scaling.md
  peers      speed, first token and greedy text beside llama.cpp and transformers.js with the same weights; installs them in bench/peers
  hosts      two verifiers and two drafters in network namespaces, by the delay between hosts; needs root; writes docs/hosts-delay.svg
  tracing    what tracing costs: off, kept for /traces, exported for 1 %, 10 % and all requests
  report     writes docs/performance.md from what was kept with --save
  overhead   what a step takes beyond max(draft, verify), with engines of fixed latency (no model)

options
  --models DIR      the pair (models/default)
  --draft-model DIR a whole model that drafts token by token, in the place of the pair's drafter; peers: beside it, and as llama.cpp's draft model
  --tokens N        tokens per sequence (128; context: 32)
  --sequences N     exact: sequences per setting (20); overhead: sequences (4)
  --prompts N       decode: prompts (32); peers: (16); hosts: (8)
  --streams LIST    load: streams at once (1,2,4,8,16,32)
  --repeats N       load, context, prefill, tracing: times each (4; prefill: 9, tracing: 12)
  --length N        longest block (PTP_DRAFT_LENGTH)
  --budget N        tokens per draft call (PTP_DRAFT_BUDGET)
  --mode MODE       overlap, sequential, plain, or auto (PTP_DRAFT_MODE)
  --ahead N         steps sent before the outcome of those before them is known, 0 for none (PTP_DRAFT_AHEAD)
  --no-lookup       proposals from the drafter only
  --save            keep the result in bench/results, for \`report\``;

/** Suites that decode with the pair of --models, and others. */
const ON_MODELS = ['exact', 'decode', 'load', 'context', 'prefill', 'peers', 'tracing'] as const;
const OTHERS = ['overhead', 'scaling', 'report', 'hosts'] as const;
type OnModels = (typeof ON_MODELS)[number];
type Other = (typeof OTHERS)[number];

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    models: { type: 'string', default: join(import.meta.dirname, '..', 'models', 'default') },
    'draft-model': { type: 'string' },
    tokens: { type: 'string' },
    sequences: { type: 'string' },
    prompts: { type: 'string' },
    streams: { type: 'string', default: '1,2,4,8,16,32' },
    repeats: { type: 'string' },
    length: { type: 'string' },
    budget: { type: 'string' },
    mode: { type: 'string' },
    ahead: { type: 'string' },
    'no-lookup': { type: 'boolean', default: false },
    save: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});

/** An option's value, or what the suite takes without it. */
function positive(
  name: 'tokens' | 'sequences' | 'prompts' | 'repeats' | 'length' | 'budget',
  otherwise: number,
): number {
  const given = values[name];
  return given === undefined ? otherwise : count(name, given);
}

function count(name: string, text: string, least = 1): number {
  const value = Number(text);
  if (Number.isInteger(value) && value >= least) return value;
  return refuse(`--${name} must be an integer >= ${least}, got ${text}`);
}

function refuse(message: string): never {
  console.error(message);
  process.exit(2);
}

const onModels = ON_MODELS.find((name) => name === positionals[0]);
const suite = onModels ?? OTHERS.find((name) => name === positionals[0]);
if (values.help || !suite) {
  console.error(values.help ? USAGE : `unknown suite ${positionals[0] ?? '(none)'}\n\n${USAGE}`);
  process.exit(values.help ? 0 : 2);
}

const modes = gatewaySettings.draftMode.values;
// measuring modes beside ways of tracing would only be noise
const wanted = values.mode ?? (suite === 'tracing' ? 'overlap' : gatewaySettings.draftMode.default);
const mode =
  modes.find((value) => value === wanted) ?? refuse(`--mode must be one of ${modes.join(', ')}, got ${wanted}`);
const limits: DraftLimits = {
  length: positive('length', gatewaySettings.draftLength.default),
  budget: positive('budget', gatewaySettings.draftBudget.default),
  mode,
  lookup: !values['no-lookup'],
  ahead: values.ahead === undefined ? gatewaySettings.draftAhead.default : count('ahead', values.ahead, 0),
};
const tokens = positive('tokens', suite === 'context' ? 32 : 128);
const sequences = positive('sequences', suite === 'overhead' ? 4 : 20);
const promptCount = positive('prompts', suite === 'peers' ? 16 : suite === 'hosts' ? 8 : 32);
const repeats = positive('repeats', suite === 'prefill' ? 9 : suite === 'tracing' ? 12 : 4);
const streams = values.streams.split(',').map((text) => count('streams', text));
console.error(machine());

const result = onModels ? await withModels(onModels) : await other(suite as Other);
const usesPair = onModels !== undefined || suite === 'hosts';
const report = {
  suite,
  machine: machine(),
  ...(usesPair && { pair: (await loadManifest(values.models)).created, ...limits }),
  ...(values['draft-model'] && { draft_model: (await loadManifest(values['draft-model'])).id }),
  ...result,
};
if (values.save) await keep(report);
console.log(JSON.stringify(report));
if (suite === 'exact') {
  const { mismatches, accepted } = result as ExactResult;
  if (mismatches !== 0 || accepted === 0) process.exitCode = 1;
}

async function other(chosen: Other): Promise<object> {
  switch (chosen) {
    case 'overhead':
      return overhead(sequences, tokens, limits.ahead ?? 0);
    case 'scaling':
      return scaling();
    case 'hosts': {
      const tokenizer = await loadTokenizer(values.models);
      const { endOfText, contextLength } = modelInfoOf(await loadManifest(values.models));
      const prompts = await loadPrompts(tokenizer, endOfText, contextLength - tokens);
      return hosts(values.models, limits, prompts.slice(0, promptCount), tokens);
    }
    case 'report':
      return (await import('./suites/report.ts')).report();
  }
}

async function withModels(chosen: OnModels): Promise<object> {
  const tokenizer = await loadTokenizer(values.models);
  const sink = chosen === 'tracing' ? await startSink() : undefined;
  const draftModel = chosen === 'peers' ? undefined : values['draft-model'];
  const bench = await startServices(values.models, limits, chosen === 'exact' || chosen === 'prefill', draftModel);
  try {
    const { endOfText, contextLength } = bench.generator.model;
    const prompts = await loadPrompts(tokenizer, endOfText, contextLength - tokens);
    if (sink) return await tracing(bench, sink, limits, prompts, tokens, repeats);
    return await run(chosen as Exclude<OnModels, 'tracing'>, bench, prompts);
  } finally {
    await bench.stop();
    sink?.stop();
  }
}

function run(chosen: Exclude<OnModels, 'tracing'>, bench: Bench, prompts: readonly Prompt[]): Promise<object> {
  const { generator } = bench;
  switch (chosen) {
    case 'exact':
      return exact(generator, prompts, sequences, tokens);
    case 'decode':
      return decode(generator, prompts.slice(0, promptCount), tokens);
    case 'load':
      return load(generator, prompts, streams, tokens, repeats);
    case 'context':
      return context(generator, prompts, repeats, tokens);
    case 'prefill':
      return prefill(generator, prompts, repeats);
    case 'peers':
      return peers(
        bench,
        { pair: values.models, draft: values['draft-model'] },
        limits,
        prompts.slice(0, promptCount),
        tokens,
      );
  }
}

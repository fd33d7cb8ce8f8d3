/** `npm run bench -- SUITE [--models DIR] ...`; each suite ends with one line of JSON. */
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { gatewaySettings } from '../gateway/src/settings.ts';
import { loadTokenizer } from '../gateway/src/tokenizer.ts';
import { decode } from './decode.ts';
import { exact } from './exact.ts';
import { loadPrompts } from './prompts.ts';
import { startServices } from './services.ts';
import { machine } from './statistics.ts';

const USAGE = `npm run bench -- SUITE [options]

suites
  exact    compares texts with the drafter on and off, alone and four at once, token by token
  decode   speed with the drafter on and off, interleaved, on held-out prompts

options
  --models DIR      the pair (models/default)
  --tokens N        tokens per sequence (128)
  --sequences N     exact: sequences per setting (20)
  --prompts N       decode: prompts (32)
  --length N        longest block (PTP_DRAFT_LENGTH)
  --budget N        tokens per draft call (PTP_DRAFT_BUDGET)
  --mode MODE       overlap, sequential, plain, or auto, which is the server's default (overlap)`;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    models: { type: 'string', default: join(import.meta.dirname, '..', 'models', 'default') },
    tokens: { type: 'string', default: '128' },
    sequences: { type: 'string', default: '20' },
    prompts: { type: 'string', default: '32' },
    length: { type: 'string', default: '5' },
    budget: { type: 'string', default: '16' },
    mode: { type: 'string', default: 'overlap' },
    help: { type: 'boolean', default: false },
  },
});

function positive(name: 'tokens' | 'sequences' | 'prompts' | 'length' | 'budget'): number {
  const value = Number(values[name]);
  if (Number.isInteger(value) && value >= 1) return value;
  console.error(`--${name} must be an integer >= 1, got ${values[name]}`);
  process.exit(2);
}

const [suite] = positionals;
if (values.help || (suite !== 'exact' && suite !== 'decode')) {
  console.error(values.help ? USAGE : `unknown suite ${suite ?? '(none)'}\n\n${USAGE}`);
  process.exit(values.help ? 0 : 2);
}

console.error(machine());
const mode = gatewaySettings.draftMode.values.find((value) => value === values.mode);
if (!mode) {
  console.error(`--mode must be one of ${gatewaySettings.draftMode.values.join(', ')}, got ${values.mode}`);
  process.exit(2);
}
const limits = { length: positive('length'), budget: positive('budget'), mode };
const tokenizer = await loadTokenizer(values.models);
const bench = await startServices(values.models, limits);
try {
  const { endOfText, contextLength } = bench.generator.facts;
  const prompts = await loadPrompts(tokenizer, endOfText, contextLength - positive('tokens'));
  const result =
    suite === 'exact'
      ? await exact(bench.generator, prompts, positive('sequences'), positive('tokens'))
      : await decode(bench.generator, prompts.slice(0, positive('prompts')), positive('tokens'));
  console.log(JSON.stringify({ suite, ...limits, ...result }));
  if ('mismatches' in result && (result.mismatches !== 0 || result.accepted === 0)) process.exitCode = 1;
} finally {
  await bench.stop();
}

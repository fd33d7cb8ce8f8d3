import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { PtpError } from '@ptp/protocol/errors';
import { parseExactly } from '@ptp/protocol/long-number';
import { loadManifest } from '@ptp/protocol/manifest';
import { Command } from 'commander';
import { GrammarCache } from '../../gateway/src/grammar/cache.ts';
import { jsonSchemaGrammar } from '../../gateway/src/grammar/json-schema.ts';
import type { GrammarState } from '../../gateway/src/grammar/types.ts';
import { loadTextModel } from '../../gateway/src/text/text-model.ts';
import { machine, quantile, round, sum } from '../statistics.ts';

const ROOT = join(import.meta.dirname, '..', '..');

/** Schema with values that do or do not satisfy it. */
interface SchemaGroup {
  readonly schema: unknown;
  readonly tests: readonly { readonly data: unknown; readonly valid: boolean }[];
}

/** Measures coverage and times over a folder of schemas. Exits with 1 if a grammar accepts an invalid value. */
export const grammar = new Command('grammar')
  .description('Measure coverage and times of constrained output on a folder of JSON Schemas, without a model')
  .argument('[folder]', 'folder of JSON-Schema-Test-Suite or maskbench files', join(ROOT, 'bench', 'schemas'))
  .option('--model <path>', 'model with the vocabulary to mask', join(ROOT, 'models', 'default'))
  .option('--closed', 'reject properties that a schema does not declare, as requests do by default')
  .configureHelp({ helpWidth: 100 })
  .action(async (folder: string, { model, closed }: { readonly model: string; readonly closed?: boolean }) => {
    console.error(machine());
    const figures = await measure(folder, model, !closed);
    if (figures.invalid_accepted > 0) process.exitCode = 1;
    console.log(JSON.stringify({ suite: 'grammar', machine: machine(), ...figures }));
  });

async function measure(folder: string, path: string, open: boolean) {
  const { tokenizer } = await loadTextModel(path, await loadManifest(path));
  const endOfText = tokenizer.size;
  const cache = new GrammarCache(tokenizer, { vocabulary: tokenizer.size + 1, endOfText });
  const refused = new Map<string, number>();
  const [compiles, masks]: [number[], number[]] = [[], []];
  const counts = { schemas: 0, compiled: 0, valid: 0, valid_accepted: 0, invalid: 0, invalid_accepted: 0 };
  for (const { schema, tests } of await groupsOf(folder)) {
    counts.schemas++;
    const key = `${counts.schemas}`;
    let start: GrammarState;
    const before = performance.now();
    try {
      start = cache.start({ grammar: jsonSchemaGrammar(schema, 'schema', { open }), key });
    } catch (error) {
      if (!(error instanceof PtpError)) throw error;
      const reason = error.message.replace(/^`schema[^`]*?\.?([^.`]*)`/, '`$1`').slice(0, 80);
      refused.set(reason, (refused.get(reason) ?? 0) + 1);
      continue;
    }
    compiles.push(performance.now() - before);
    counts.compiled++;
    for (const { data, valid } of tests) {
      const accepted = accepts(start, tokenizer.encode(JSON.stringify(data)), endOfText, valid ? masks : undefined);
      counts[valid ? 'valid' : 'invalid']++;
      if (accepted) counts[valid ? 'valid_accepted' : 'invalid_accepted']++;
      const verdict = accepted ? 'accepts the invalid' : 'refuses the valid';
      if (accepted !== valid) console.error(`${verdict} ${JSON.stringify(data)} of ${JSON.stringify(schema)}`);
    }
  }
  const reasons = [...refused].sort(([, a], [, b]) => b - a);
  for (const [reason, count] of reasons) console.error(`${count} x ${reason}`);
  return { ...counts, open, compile_ms: spread(compiles), masks: masks.length, mask_us: spread(masks, 1000) };
}

/** Returns true if the grammar accepts the tokens as a complete text. @param masks receives the time of each mask */
function accepts(
  start: GrammarState,
  tokens: readonly number[],
  endOfText: number,
  masks: number[] | undefined,
): boolean {
  let state: GrammarState | undefined = start;
  for (const token of tokens) {
    const before = performance.now();
    if (masks) void state.mask;
    masks?.push(performance.now() - before);
    state = state.after(token);
    if (!state) return false;
  }
  return state.after(endOfText) !== undefined;
}

function spread(values: readonly number[], unit = 1) {
  const of = (value: number) => round(value * unit);
  return {
    mean: of(sum(values) / values.length),
    p50: of(quantile(values, 0.5)),
    p99: of(quantile(values, 0.99)),
    max: of(quantile(values, 1)),
  };
}

/** Reads all groups below a folder: files with one group (maskbench) or an array (JSON-Schema-Test-Suite). */
async function groupsOf(folder: string): Promise<SchemaGroup[]> {
  const files = (await readdir(folder, { recursive: true })).filter((file) => file.endsWith('.json')).sort();
  const groups: SchemaGroup[] = [];
  for (const file of files) {
    const content = parseExactly(await readFile(join(folder, file), 'utf8')) as SchemaGroup | SchemaGroup[];
    groups.push(...[content].flat().filter((group) => Array.isArray(group?.tests) && group.schema !== undefined));
  }
  return groups;
}

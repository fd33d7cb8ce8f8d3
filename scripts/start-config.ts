import { readFileSync } from 'node:fs';
import { invalidField } from '@ptp/protocol/validation';
import { parse } from 'yaml';
import { z } from 'zod';
import { StartError } from './supervisor.ts';

const expected = 'a string, a number or a list of them';
const content = z.record(z.string(), z.union([z.string(), z.array(z.string()).transform(String)]));

/**
 * Reads flags from a YAML file. Its keys are the names of flags without the dashes.
 *
 * @param names all keys that the file may have
 * @throws StartError if the file cannot be read or is not a mapping, if a key is unknown, or if a value is a mapping or
 *   a nested list
 */
export function readConfig(file: string, names: readonly string[]): Record<string, string> {
  const given = parseYaml(file) ?? {};
  if (typeof given !== 'object' || Array.isArray(given)) throw new StartError(`${file} must have lines "flag: value"`);
  const unknown = Object.keys(given).find((key) => !names.includes(key));
  if (unknown !== undefined) {
    throw new StartError(`${file}: \`${unknown}\` is not a flag of npm start; see npm start -- --help-all`);
  }
  const { data, error } = content.safeParse(given);
  if (data) return data;
  const key = String(error.issues[0]?.path[0]);
  const { message } = invalidField(key, expected, (given as Record<string, unknown>)[key]);
  throw new StartError(`${file}: ${message}`);
}

/** Returns the content of a YAML file, with all scalars as strings. */
function parseYaml(file: string): unknown {
  try {
    return parse(readFileSync(file, 'utf8'), { schema: 'failsafe' });
  } catch (error) {
    const [problem] = (error as Error).message.split('\n');
    throw new StartError(`cannot read --config ${file}: ${problem?.replace(/:$/, '')}`);
  }
}

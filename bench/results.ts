import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

/** What a suite printed last with --save. */
export interface Result {
  readonly suite: string;
  readonly machine: string;
  readonly mode?: string;
  /** When the pair was made that it ran with, as its manifest says. */
  readonly pair?: string;
  /** Day of the run, UTC. */
  readonly date: string;
  readonly [figure: string]: unknown;
}

const FOLDER = join(import.meta.dirname, 'results');

/** Keeps a result in bench/results; of `decode` one for each mode. */
export async function keep(result: Omit<Result, 'date'> & { suite: string; mode?: string }): Promise<void> {
  const name = result.suite === 'decode' ? `decode-${result.mode}` : result.suite;
  const dated = { date: new Date().toISOString().slice(0, 10), ...result };
  await mkdir(FOLDER, { recursive: true });
  await writeFile(join(FOLDER, `${name}.json`), `${JSON.stringify(dated, null, 1)}\n`);
}

/** All kept results by name; none before the first run with --save. */
export async function kept(): Promise<ReadonlyMap<string, Result>> {
  const names = (await readdir(FOLDER).catch(() => [])).filter((name) => name.endsWith('.json'));
  const read = async (name: string): Promise<[string, Result]> => [
    name.slice(0, -'.json'.length),
    JSON.parse(await readFile(join(FOLDER, name), 'utf8')),
  ];
  return new Map(await Promise.all(names.map(read)));
}

import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

/** The latest result of a suite that was kept with --save. */
export interface Result {
  readonly suite: string;
  readonly machine: string;
  readonly mode?: string;
  /** Creation time of the pair, from the pair's manifest. */
  readonly pair?: string;
  /** Day of the run in UTC. */
  readonly date: string;
  readonly [figure: string]: unknown;
}

const FOLDER = join(import.meta.dirname, 'results');

/** Keeps a result in bench/results. Each suite has one file, except `decode`, which has one file for each mode. */
export async function saveResult(result: Omit<Result, 'date'> & { suite: string; mode?: string }): Promise<void> {
  const name = result.suite === 'decode' ? `decode-${result.mode}` : result.suite;
  const dated = { date: new Date().toISOString().slice(0, 10), ...result };
  await mkdir(FOLDER, { recursive: true });
  await writeFile(join(FOLDER, `${name}.json`), `${JSON.stringify(dated, null, 1)}\n`);
}

/** Returns all kept results by name. */
export async function loadResults(): Promise<ReadonlyMap<string, Result>> {
  const files = (await readdir(FOLDER).catch(() => [])).filter((file) => file.endsWith('.json'));
  const load = async (file: string): Promise<[string, Result]> => [
    file.slice(0, -'.json'.length),
    JSON.parse(await readFile(join(FOLDER, file), 'utf8')),
  ];
  return new Map(await Promise.all(files.map(load)));
}

import { createHash } from 'node:crypto';
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';

/** Returns the user's cache folder, or undefined for a user without a home folder, as in some containers. */
export function userCaches(env: NodeJS.ProcessEnv): string | undefined {
  if (env.XDG_CACHE_HOME) return env.XDG_CACHE_HOME;
  try {
    return join(homedir(), '.cache');
  } catch {
    return undefined;
  }
}

/** Returns the folder of this project's own caches below the user's cache folder. */
export function ownCaches(caches: string): string {
  return join(caches, 'ptp-server');
}

/**
 * Value that a later process can read instead of computing it again. It is kept in a file of the user's cache folder,
 * such as ~/.cache/ptp-server/KIND/HASH.json.
 */
export class CachedJson {
  readonly #path: string | undefined;

  /**
   * @param kind name of the folder
   * @param key everything on which the value depends, as JSON
   */
  constructor(kind: string, key: unknown, env: NodeJS.ProcessEnv) {
    const hash = createHash('sha256').update(JSON.stringify(key)).digest('hex');
    const caches = userCaches(env);
    this.#path = caches && join(ownCaches(caches), kind, `${hash.slice(0, 32)}.json`);
  }

  /** Returns the value, or undefined if none is stored or the file is damaged. */
  async read(): Promise<unknown> {
    if (!this.#path) return undefined;
    try {
      return JSON.parse(await readFile(this.#path, 'utf8'));
    } catch {
      return undefined;
    }
  }

  /** Stores the value. Failures are ignored, because a container may have no folder to write to. */
  async write(value: unknown): Promise<void> {
    if (!this.#path) return;
    try {
      await mkdir(dirname(this.#path), { recursive: true });
      const part = `${this.#path}.${process.pid}`;
      await writeFile(part, JSON.stringify(value));
      await rename(part, this.#path);
    } catch {}
  }
}

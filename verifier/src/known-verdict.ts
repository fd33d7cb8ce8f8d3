import { createHash } from 'node:crypto';
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { arch, cpus, homedir, platform } from 'node:os';
import { dirname, join } from 'node:path';
import type { BatchInvariance } from '@ptp/engine/batch-invariance';

/** Version of stored results. A change of the self-check or the engine that can change a result increases it. */
const FORMAT = 2;

/** Everything on which the result of a self-check depends, apart from the machine. */
export interface CheckedEngine {
  /** Model folder, whose manifest has the hashes of its files. */
  readonly dir: string;
  /** Name and version of the runtime. */
  readonly runtime: string;
  readonly threads: number;
  readonly maxSlots: number;
  /** Limits the length of the test text. */
  readonly contextLength: number;
}

/** Result of an earlier self-check of the same model with the same runtime on the same kind of CPU. */
export class KnownVerdict {
  readonly #path: string | undefined;

  private constructor(path: string | undefined) {
    this.#path = path;
  }

  static async of({ dir, ...engine }: CheckedEngine, env = process.env): Promise<KnownVerdict> {
    const hash = createHash('sha256');
    hash.update(await readFile(join(dir, 'manifest.json')));
    hash.update(JSON.stringify([FORMAT, engine, process.versions.node, platform(), arch(), await cpu()]));
    const folder = cacheFolder(env);
    const name = `${hash.digest('hex').slice(0, 32)}.json`;
    return new KnownVerdict(folder && join(folder, 'ptp-server', 'self-check', name));
  }

  /** Returns the result, or undefined if none is stored or it cannot be read. */
  async read(): Promise<BatchInvariance | undefined> {
    if (!this.#path) return undefined;
    try {
      const { invariant, rows } = JSON.parse(await readFile(this.#path, 'utf8'));
      return invariant === true && Number.isInteger(rows) ? { invariant, rows, complete: true } : undefined;
    } catch {
      return undefined;
    }
  }

  /**
   * Stores a positive result of a complete check. Failures are ignored, because a container may have no folder to write
   * to.
   */
  async write({ invariant, rows, complete }: BatchInvariance): Promise<void> {
    if (!this.#path || !invariant || !complete) return;
    try {
      await mkdir(dirname(this.#path), { recursive: true });
      const part = `${this.#path}.${process.pid}`;
      await writeFile(part, JSON.stringify({ invariant, rows }));
      await rename(part, this.#path);
    } catch {}
  }
}

/** Returns the user's cache folder, or undefined for a user without a home folder, as in some containers. */
function cacheFolder(env: NodeJS.ProcessEnv): string | undefined {
  try {
    return env.XDG_CACHE_HOME || join(homedir(), '.cache');
  } catch {
    return undefined;
  }
}

/** Describes the CPU: its name, and on Linux also its stepping and features, which choose the kernels. */
async function cpu(): Promise<string[]> {
  const info = await readFile('/proc/cpuinfo', 'utf8').catch(() => '');
  const first = info.split('\n\n')[0]?.split('\n') ?? [];
  return [
    cpus()[0]?.model ?? '',
    ...first.filter((line) => /^(cpu family|model|stepping|flags|Features)\s*:/.test(line)),
  ];
}

import { readFile } from 'node:fs/promises';
import { arch, cpus, platform } from 'node:os';
import type { BatchInvariance } from '@ptp/engine/batch-invariance';
import type { EngineInfo } from '@ptp/engine/types';
import { CachedJson } from '@ptp/protocol/cached-json';

/** Version of stored results. A change of the self-check or the engine that can change a result increases it. */
const FORMAT = 4;

/**
 * Result of an earlier self-check of the same model with the same runtime on the same kind of CPU. Another check would
 * compute the same bits again.
 */
export class KnownVerdict {
  readonly #file: CachedJson;

  private constructor(file: CachedJson) {
    this.#file = file;
  }

  /** Returns undefined if the engine's results depend on more than is known. */
  static async of(
    { fingerprint, maxSlots, contextLength }: EngineInfo,
    env = process.env,
  ): Promise<KnownVerdict | undefined> {
    if (!fingerprint) return undefined;
    const machine = [process.versions.node, platform(), arch(), await cpu()];
    const key = [FORMAT, fingerprint, maxSlots, contextLength, machine];
    return new KnownVerdict(new CachedJson('self-check', key, env));
  }

  /** Returns the result, or undefined if none is stored or it cannot be read. */
  async read(): Promise<BatchInvariance | undefined> {
    const { invariant, rows, complete } = ((await this.#file.read()) ?? {}) as Partial<BatchInvariance>;
    if (typeof invariant !== 'boolean' || typeof complete !== 'boolean') return undefined;
    return Number.isInteger(rows) ? { invariant, rows: rows as number, complete } : undefined;
  }

  /** Stores a result. */
  write({ invariant, rows, complete }: BatchInvariance): Promise<void> {
    return this.#file.write({ invariant, rows, complete });
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

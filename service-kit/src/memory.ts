import { totalmem } from 'node:os';
import { PtpError } from '@ptp/protocol/errors';

/** Returns the memory of the machine, or of the container if that is less, in bytes. Reads the limits of cgroups. */
export function availableMemory(): number {
  return Math.min(totalmem(), process.constrainedMemory() || Number.POSITIVE_INFINITY);
}

/** Maximum memory of a process, in bytes. */
export interface MemoryBudget {
  /** Maximum memory of each part in bytes. The keys become names of log fields. */
  readonly parts: Readonly<Record<string, number>>;
  readonly total: number;
  /** Memory that the process may use, in bytes. */
  readonly available: number;
}

export function budgetOf(parts: MemoryBudget['parts'], available = availableMemory()): MemoryBudget {
  const total = Object.values(parts).reduce((sum, bytes) => sum + bytes, 0);
  return { parts, total, available };
}

/**
 * Checks that a budget fits.
 *
 * @param advice next step for the user, which ends the error message
 * @throws PtpError `failed_precondition` if the total exceeds the available memory
 */
export function requireMemory({ parts, total, available }: MemoryBudget, advice: string): void {
  if (total <= available) return;
  const list = Object.entries(parts).map(([name, bytes]) => `${name.replaceAll('_', ' ')} ${toMegabytes(bytes)}`);
  throw new PtpError(
    'failed_precondition',
    `the process needs ${toMegabytes(total)} MB of memory (${list.join(', ')}), but has ${toMegabytes(available)} MB: ${advice}`,
  );
}

/** Returns the fields of a log record about a budget, in MB (10^6 bytes). */
export function budgetFields({ parts, total, available }: MemoryBudget): Record<string, number> {
  const sizes = { ...parts, total, available };
  return Object.fromEntries(Object.entries(sizes).map(([name, bytes]) => [`${name}_mb`, toMegabytes(bytes)]));
}

function toMegabytes(bytes: number): number {
  return Math.ceil(bytes / 1e6);
}

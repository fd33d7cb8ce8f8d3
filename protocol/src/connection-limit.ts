import { readFileSync } from 'node:fs';

/** Maximum number of connections of one server. */
const CONNECTION_LIMIT = 4096;

/** Returns the maximum number of open connections of one server: at most a third of the files that may be open. */
export function connectionLimit(limits = readLimits()): number {
  const files = Number(/^Max open files\s+(\d+)/m.exec(limits)?.[1] ?? Number.POSITIVE_INFINITY);
  return Math.min(CONNECTION_LIMIT, Math.floor(files / 3));
}

function readLimits(): string {
  try {
    return readFileSync('/proc/self/limits', 'utf8');
  } catch {
    return ''; // only Linux has this file
  }
}

import { stat, statfs } from 'node:fs/promises';
import { dirname } from 'node:path';
import { ModelError } from './model-error.ts';
import { formatBytes } from './progress.ts';

/** Free disk space to leave, in bytes. */
const RESERVE = 200_000_000;

/**
 * @param dir may not exist yet
 * @param purpose begins the message
 * @throws ModelError if the disk of a folder has too little space
 */
export async function checkSpace(dir: string, bytes: number, purpose: string): Promise<void> {
  const { bavail, bsize } = await statfs(await nearest(dir));
  const free = bavail * bsize;
  if (free >= bytes + RESERVE) return;
  const problem = `needs ${formatBytes(bytes)}, and ${dir} has ${formatBytes(free)} left`;
  throw new ModelError(
    `${purpose} ${problem}: free some, or set HF_HOME and XDG_CACHE_HOME to folders on another disk`,
  );
}

/** The folder itself, else its nearest parent that exists. */
async function nearest(dir: string): Promise<string> {
  const isThere = await stat(dir).catch(() => undefined);
  return isThere || dirname(dir) === dir ? dir : nearest(dirname(dir));
}

import { stat, statfs } from 'node:fs/promises';
import { dirname } from 'node:path';
import { ModelError } from './model-error.ts';
import { formatBytes } from './progress.ts';

/** Number of bytes of free disk space to leave. */
const RESERVE = 200_000_000;

/**
 * Checks that the disk that holds a folder has enough free space.
 *
 * @param dir folder, which may not exist yet
 * @param purpose first words of the error message
 * @param instead last words of the error message: what helps except free space
 * @throws ModelError if the disk has too little space
 */
export async function checkSpace(
  dir: string,
  bytes: number,
  purpose: string,
  instead = 'set HF_HOME and XDG_CACHE_HOME to folders on another disk',
): Promise<void> {
  const { bavail, bsize } = await statfs(await nearest(dir));
  const free = bavail * bsize;
  if (free >= bytes + RESERVE) return;
  const problem = `needs ${formatBytes(bytes)}, and ${dir} has ${formatBytes(free)} left`;
  throw new ModelError(`${purpose} ${problem}: free some, or ${instead}`);
}

/** Returns the folder itself if it exists, else its nearest parent that exists. */
async function nearest(dir: string): Promise<string> {
  const isThere = await stat(dir).catch(() => undefined);
  return isThere || dirname(dir) === dir ? dir : nearest(dirname(dir));
}

import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { link, lstat, mkdir, rename, rm, stat, symlink } from 'node:fs/promises';
import { dirname, join, normalize, relative } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { ReadableStream } from 'node:stream/web';
import { setTimeout as sleep } from 'node:timers/promises';
import { Backoff } from '../backoff.ts';
import { type HubConfig, repoDir } from './hub-config.ts';
import { ModelError } from './model-error.ts';
import { type HubFile, networkError, type Repository, statusError } from './repository.ts';

/** Number of attempts without a single received byte after which a download fails. */
const ATTEMPTS = 4;

/**
 * Downloads a file of a repository into the cache, unless it is there: `blobs/HASH`, and a link to it at
 * `snapshots/COMMIT/PATH`. An interrupted download continues where it stopped, in this run or a later one.
 *
 * @param onBytes function that is called with the size of each chunk
 * @returns the path of the link
 * @throws ModelError if the hub does not send the file, or the hash of its content differs from the hash that the hub
 *   states
 */
export async function downloadFile(
  config: HubConfig,
  repository: Repository,
  file: HubFile,
  onBytes: (bytes: number) => void,
): Promise<string> {
  const { blob, pointer } = placesOf(config, repository, file);
  await mkdir(dirname(blob), { recursive: true });
  await mkdir(dirname(pointer), { recursive: true });
  if ((await sizeOf(blob)) !== file.size) {
    const part = partOf(blob);
    await fetchWhole(config, repository, file, part, onBytes);
    if (!(await hashFits(part, file))) {
      await rm(part);
      throw new ModelError(
        `\`${file.path}\` of \`${repository.name}\` was damaged during the download: run this again`,
      );
    }
    await rename(part, blob);
  }
  await pointTo(pointer, blob);
  return pointer;
}

/** Returns the number of bytes of a file that still have to be downloaded. */
export async function missingBytes(config: HubConfig, repository: Repository, file: HubFile): Promise<number> {
  const { blob } = placesOf(config, repository, file);
  if ((await sizeOf(blob)) === file.size) return 0;
  return Math.max(file.size - (await sizeOf(partOf(blob))), 0);
}

function placesOf(config: HubConfig, { name, commit }: Repository, { path, gitHash, sha256 }: HubFile) {
  const dir = repoDir(config, name);
  const snapshot = join(dir, 'snapshots', commit);
  const pointer = join(snapshot, normalize(path));
  // The path comes from the hub, and it must not lead to other folders.
  if (relative(snapshot, pointer).startsWith('..')) throw new ModelError(`\`${name}\` has an unsafe path \`${path}\``);
  return { blob: join(dir, 'blobs', sha256 ?? gitHash), pointer };
}

/** Returns the name of an unfinished file, the same as other tools for the hub use. */
function partOf(blob: string): string {
  return `${blob}.incomplete`;
}

async function sizeOf(path: string): Promise<number> {
  return (await stat(path).catch(() => undefined))?.size ?? 0;
}

async function fetchWhole(
  config: HubConfig,
  repository: Repository,
  file: HubFile,
  part: string,
  onBytes: (bytes: number) => void,
): Promise<void> {
  const backoff = new Backoff(200, 10_000);
  for (let failures = 0; ; ) {
    const before = await sizeOf(part);
    try {
      await fetchRest(config, repository, file, part, before, onBytes);
      return;
    } catch (error) {
      if (error instanceof ModelError) throw error;
      if ((error as NodeJS.ErrnoException).code === 'ENOSPC') {
        throw new ModelError(`no space is left at ${config.cacheDir}: free some, then run this again`);
      }
      failures = (await sizeOf(part)) > before ? 0 : failures + 1;
      if (failures === 0) backoff.reset();
      if (failures >= ATTEMPTS) throw networkError(config, repository.name, error);
      await sleep(backoff.next());
    }
  }
}

/**
 * Requests the rest of a file.
 *
 * @throws ModelError if the response has a status that a retry would not change; any other error means an interruption
 */
async function fetchRest(
  config: HubConfig,
  { name, commit, gated }: Repository,
  { path, size }: HubFile,
  part: string,
  from: number,
  onBytes: (bytes: number) => void,
): Promise<void> {
  if (from === size && size > 0) return;
  const resume = from > 0 && from < size;
  const encoded = path.split('/').map(encodeURIComponent).join('/');
  const response = await fetch(`${config.endpoint}/${name}/resolve/${commit}/${encoded}`, {
    headers: {
      'accept-encoding': 'identity',
      ...(config.token && { authorization: `Bearer ${config.token}` }),
      ...(resume && { range: `bytes=${from}-` }),
    },
  });
  if (!response.ok || !response.body) {
    await response.body?.cancel();
    if (response.status >= 500 || response.status === 429) throw new Error(`HTTP ${response.status}`);
    throw statusError(config, name, response.status, gated);
  }
  const count = async function* (chunks: AsyncIterable<Uint8Array>) {
    for await (const chunk of chunks) {
      onBytes(chunk.length);
      yield chunk;
    }
  };
  const flags = response.status === 206 ? 'a' : 'w';
  await pipeline(Readable.fromWeb(response.body as ReadableStream), count, createWriteStream(part, { flags }));
  const received = await sizeOf(part);
  if (received < size) throw new Error(`the connection ended after ${received} of ${size} bytes`);
}

/** Compares a file with its expected hash: SHA-256 for files in large file storage, otherwise git's hash of a blob. */
async function hashFits(path: string, { size, gitHash, sha256 }: HubFile): Promise<boolean> {
  const hash = createHash(sha256 ? 'sha256' : 'sha1');
  if (!sha256) hash.update(`blob ${size}\0`);
  await pipeline(createReadStream(path), hash);
  return hash.digest('hex') === (sha256 ?? gitHash);
}

async function pointTo(pointer: string, blob: string): Promise<void> {
  if (await lstat(pointer).catch(() => undefined)) return;
  // Windows allows symbolic links only to some users.
  await symlink(relative(dirname(pointer), blob), pointer).catch(() => link(blob, pointer));
}

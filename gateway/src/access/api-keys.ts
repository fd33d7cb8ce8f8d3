import { createHash, timingSafeEqual } from 'node:crypto';
import { unwatchFile, watchFile } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { PtpError } from '@ptp/protocol/errors';
import type { Logger } from '@ptp/service-kit/log';
import { onReload } from '@ptp/service-kit/reload';
import { z } from 'zod';
import { Admission } from './admission.ts';

/** Schema of the keys file: an array with one entry per key. An entry contains the key's hash, never the key itself. */
const fileSchema = z
  .array(
    z.strictObject({
      /** Name of the client in logs. */
      name: z.string().min(1),
      /** SHA-256 of the key, in hex: `printf %s "$KEY" | sha256sum`. */
      sha256: z.string().regex(/^[0-9a-f]{64}$/, 'must be 64 lower-case hex digits'),
      /** Maximum number of the client's concurrent sequences. PTP_MAX_STREAMS applies as well. */
      max_streams: z.int().min(1).optional(),
      requests_per_minute: z.int().min(1).optional(),
    }),
  )
  .min(1);

type KeyEntries = z.infer<typeof fileSchema>;

const idOf = (entry: KeyEntries[number]): string => JSON.stringify(entry);

const MINUTE = 60_000;

/** Clients that may use the server. */
export class ApiKeys {
  #clients: readonly Client[] = [];

  /** @param entries entries of the keys file; none if the server requires no key */
  constructor(entries: KeyEntries) {
    this.replace(entries);
  }

  /** Replaces the keys. A client whose entry is unchanged keeps its running sequences and its rate limit. */
  replace(entries: KeyEntries): void {
    const current = new Map(this.#clients.map((client) => [client.id, client]));
    this.#clients = entries.map((entry) => current.get(idOf(entry)) ?? new Client(entry));
  }

  /**
   * Returns the client of an `Authorization: Bearer KEY` header, or undefined if the server requires no key. Compares
   * the key with all hashes, so that the duration does not depend on the key.
   *
   * @throws PtpError `unauthenticated` if the key is missing or unknown
   */
  client(authorization: string | undefined): Client | undefined {
    if (this.#clients.length === 0) return undefined;
    const key = /^Bearer (.+)$/i.exec(authorization ?? '')?.[1];
    if (key === undefined)
      throw new PtpError('unauthenticated', 'an API key is required: send `Authorization: Bearer KEY`');
    const hash = createHash('sha256').update(key).digest();
    const [found] = this.#clients.filter((client) => timingSafeEqual(client.hash, hash));
    if (!found) throw new PtpError('unauthenticated', 'the API key is unknown');
    return found;
  }
}

/** Owner of an API key. */
export class Client {
  readonly name: string;
  /** The whole entry of the keys file. */
  readonly id: string;
  readonly hash: Buffer;
  readonly admission: Admission;
  readonly #perMinute: number | undefined;
  /** Token bucket: number of requests left, and the time at which they were counted. */
  #left: number;
  #at = 0;

  constructor(entry: KeyEntries[number]) {
    this.id = idOf(entry);
    this.name = entry.name;
    this.hash = Buffer.from(entry.sha256, 'hex');
    this.admission = new Admission(entry.max_streams ?? Number.POSITIVE_INFINITY);
    this.#perMinute = entry.requests_per_minute;
    this.#left = entry.requests_per_minute ?? 0;
  }

  /**
   * Counts a request against the rate limit.
   *
   * @param now current time in milliseconds
   * @throws PtpError `resource_exhausted` if the limit is exceeded
   */
  take(now = performance.now()): void {
    const limit = this.#perMinute;
    if (limit === undefined) return;
    this.#left = Math.min(limit, this.#left + ((now - this.#at) * limit) / MINUTE);
    this.#at = now;
    if (this.#left < 1) {
      const retryAfterMs = Math.ceil(((1 - this.#left) * MINUTE) / limit);
      throw new PtpError('resource_exhausted', `this key is limited to ${limit} requests per minute`, { retryAfterMs });
    }
    this.#left--;
  }

  /** Rate limit at the last request, and the time until it is fully restored. Undefined if there is no limit. */
  get rate() {
    const limit = this.#perMinute;
    if (limit === undefined) return undefined;
    return { limit, remaining: Math.floor(this.#left), resetMillis: ((limit - this.#left) * MINUTE) / limit };
  }
}

/** Interval in milliseconds at which the keys file is checked for changes. */
const CHECK_MS = 5_000;

/**
 * Loads the keys file. If `path` is empty, the server requires no key.
 *
 * @throws PtpError `failed_precondition` if the file cannot be read or is invalid
 */
export async function loadApiKeys(path: string, setting: string): Promise<ApiKeys> {
  return new ApiKeys(path === '' ? [] : await readEntries(path, setting));
}

/**
 * Reads the keys file again when it changes and on SIGHUP. If it cannot be used, the last good keys stay in use.
 *
 * @returns a function that stops watching
 */
export function followApiKeys(
  keys: ApiKeys,
  {
    path,
    setting,
    logger,
    intervalMs = CHECK_MS,
  }: { path: string; setting: string; logger: Logger; intervalMs?: number },
): () => void {
  if (path === '') return () => {};
  const reload = async () => {
    try {
      keys.replace(await readEntries(path, setting));
      logger.info({ path }, 'the API keys were read again');
    } catch (err) {
      logger.error({ err }, 'cannot read the API keys again: the last good ones stay in use');
    }
  };
  watchFile(path, { interval: intervalMs, persistent: false }, reload);
  const removeAction = onReload(reload);
  return () => {
    unwatchFile(path, reload);
    removeAction();
  };
}

async function readEntries(path: string, setting: string): Promise<KeyEntries> {
  const fail = (message: string, cause?: unknown) =>
    new PtpError('failed_precondition', `${setting}: ${message}`, { field: setting, cause });
  const text = await readFile(path, 'utf8').catch((cause: NodeJS.ErrnoException) => {
    throw fail(`the file cannot be read (${cause.code})`, cause);
  });
  let entries: unknown;
  try {
    entries = JSON.parse(text);
  } catch {
    throw fail('the file is not JSON');
  }
  const { data, error } = fileSchema.safeParse(entries);
  if (!data) throw fail(`${error.issues[0]?.path.join('.') || 'the file'}: ${error.issues[0]?.message}`);
  return data;
}

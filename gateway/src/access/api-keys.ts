import { createHash, timingSafeEqual } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { PtpError } from '@ptp/protocol/errors';
import { z } from 'zod';
import { Admission } from './admission.ts';

/** The keys file: an array with one entry per key, which holds the key's hash and never the key. */
const fileSchema = z
  .array(
    z.strictObject({
      /** The client's name in logs. */
      name: z.string().min(1),
      /** SHA-256 of the key, in hex: `printf %s "$KEY" | sha256sum`. */
      sha256: z.string().regex(/^[0-9a-f]{64}$/, 'must be 64 lower-case hex digits'),
      /** Limit of concurrent sequences; PTP_MAX_STREAMS applies as well. */
      max_streams: z.int().min(1).optional(),
      requests_per_minute: z.int().min(1).optional(),
    }),
  )
  .min(1);

const MINUTE = 60_000;

/** The clients that may use the server. */
export class ApiKeys {
  readonly #clients: readonly Client[];

  /** @param entries empty for a server that requires no key */
  constructor(entries: z.infer<typeof fileSchema>) {
    this.#clients = entries.map((entry) => new Client(entry));
  }

  /**
   * The client of an `Authorization: Bearer KEY` header; undefined if the server requires no key. Compares all hashes,
   * so that the time taken does not depend on the key.
   *
   * @throws PtpError `unauthenticated`
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

/** The owner of a key. */
export class Client {
  readonly name: string;
  readonly hash: Buffer;
  readonly admission: Admission;
  readonly #perMinute: number | undefined;
  /** A token bucket: requests left, and the time of that count. */
  #left: number;
  #at = 0;

  constructor(entry: z.infer<typeof fileSchema>[number]) {
    this.name = entry.name;
    this.hash = Buffer.from(entry.sha256, 'hex');
    this.admission = new Admission(entry.max_streams ?? Number.POSITIVE_INFINITY);
    this.#perMinute = entry.requests_per_minute;
    this.#left = entry.requests_per_minute ?? 0;
  }

  /**
   * Counts a request against the rate limit.
   *
   * @param now current time, milliseconds
   * @throws PtpError `resource_exhausted`
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

  /** The rate as of the last request, and the time until it is back to its limit; undefined for a key without a limit. */
  get rate() {
    const limit = this.#perMinute;
    if (limit === undefined) return undefined;
    return { limit, remaining: Math.floor(this.#left), resetMillis: ((limit - this.#left) * MINUTE) / limit };
  }
}

/**
 * Loads a keys file; no keys if `path` is empty.
 *
 * @throws PtpError `failed_precondition` if it cannot be read or is invalid
 */
export async function loadApiKeys(path: string, setting: string): Promise<ApiKeys> {
  if (path === '') return new ApiKeys([]);
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
  return new ApiKeys(data);
}

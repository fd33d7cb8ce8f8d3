import { PtpError, toPtpError } from '@ptp/protocol/errors';
import { z } from 'zod';

/** Maximum duration of a request for the server's settings in milliseconds. */
const SHORT_TIMEOUT_MS = 5000;
/** Maximum duration of a short request in milliseconds. */
const REQUEST_TIMEOUT_MS = 30_000;
/** Additional time for each token in milliseconds, in case the server has to compute a long prompt anew. */
const TIMEOUT_PER_TOKEN_MS = 1;

/** Statuses below 500 with which a server answers although the request is valid. */
const BUSY = new Set([408, 425, 429]);

const text = z.string().optional().catch(undefined);
const flag = z.boolean().optional().catch(undefined);
const count = z.int().positive().optional().catch(undefined);
/** The settings of a server that matter here. Other versions of SGLang may leave some out, or give them another type. */
const infoSchema = z.looseObject({
  version: text,
  model_path: text,
  /** Maximum number of tokens in a request. */
  max_req_input_len: count,
  attention_backend: text,
  enable_deterministic_inference: flag,
  disable_radix_cache: flag,
  speculative_algorithm: text,
  page_size: count,
  tp_size: count,
  pp_size: count,
  dp_size: count,
});
export type SglangInfo = z.infer<typeof infoSchema>;

/**
 * Client of one SGLang server. Connections stay open between requests.
 *
 * All errors are PtpErrors whose messages name the server: `unavailable` if it does not answer, `internal` if the answer
 * is not JSON, and `failed_precondition` if it rejects a request.
 */
export class SglangServer {
  /** Address without a slash at the end. */
  readonly url: string;
  readonly #timeoutMs: number;
  readonly #closing = new AbortController();

  constructor(url: string, timeoutMs = REQUEST_TIMEOUT_MS) {
    this.url = url.replace(/\/+$/, '');
    this.#timeoutMs = timeoutMs;
  }

  /** Sends POST /generate. @param read function that checks the answer; its errors are completed by the server's name */
  async generate<T>(body: { readonly input_ids: readonly number[] }, read: (answer: unknown) => T): Promise<T> {
    const timeoutMs = this.#timeoutMs + TIMEOUT_PER_TOKEN_MS * body.input_ids.length;
    const answer = await this.#request('/generate', timeoutMs, body);
    try {
      return read(answer);
    } catch (cause) {
      const { code, message } = toPtpError(cause);
      throw this.error(code, `answered /generate wrongly: ${message}`, cause);
    }
  }

  /**
   * Returns the server's settings. Also serves as health check, because the server asks its scheduler for a part of them;
   * for GET /health, SGLang would generate a token in a batch with other requests.
   */
  async info(): Promise<SglangInfo> {
    // The second name is that of older versions.
    const answer = await this.#request('/server_info', SHORT_TIMEOUT_MS).catch((error: PtpError) => {
      if (error.code === 'failed_precondition') return this.#request('/get_server_info', SHORT_TIMEOUT_MS);
      throw error;
    });
    const result = infoSchema.safeParse(answer);
    if (result.success) return result.data;
    throw this.error('internal', 'must answer /server_info with an object', result.error);
  }

  /** Ends all requests. */
  close(): void {
    this.#closing.abort();
  }

  /** Creates an error about this server. */
  error(code: PtpError['code'], problem: string, cause?: unknown): PtpError {
    return new PtpError(code, `${this.url} ${problem}`, cause === undefined ? {} : { cause });
  }

  async #request(path: string, timeoutMs: number, body?: object): Promise<unknown> {
    const text = await this.#fetch(path, timeoutMs, body);
    try {
      return JSON.parse(text);
    } catch (cause) {
      throw this.error('internal', `must answer ${path} with JSON, got ${JSON.stringify(text.slice(0, 80))}`, cause);
    }
  }

  async #fetch(path: string, timeoutMs: number, body?: object): Promise<string> {
    const started = performance.now();
    const init = body && {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    };
    const signal = AbortSignal.any([this.#closing.signal, AbortSignal.timeout(timeoutMs)]);
    const answered = fetch(`${this.url}${path}`, { ...init, signal }).then(async (response) => {
      return { status: response.status, text: await response.text() };
    });
    const { status, text } = await answered.catch((cause: Error) => {
      const elapsed = Math.round(performance.now() - started);
      const reason =
        cause.name === 'TimeoutError' ? `within ${timeoutMs} ms` : `(${reasonOf(cause)} after ${elapsed} ms)`;
      throw this.error('unavailable', `did not answer ${path} ${reason}`, cause);
    });
    if (status >= 200 && status < 300) return text;
    const rejected = status >= 400 && status < 500 && !BUSY.has(status);
    const problem = `answered ${path} with status ${status}: ${text.slice(0, 200)}`;
    throw this.error(rejected ? 'failed_precondition' : 'unavailable', problem);
  }
}

/** Returns the reason for which `fetch` failed, which it hides in the cause. */
function reasonOf(error: Error): string {
  return error.cause instanceof Error ? error.cause.message : toPtpError(error).message;
}

import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { sharedLength } from '../prefix-blocks.ts';
import { generatesNothing, type MetaInfo, metaInfo, type ScoreBody } from './fake-sglang-answer.ts';
import type { TokenScorer } from './token-scores.ts';

/** Failure of one request, for tests. */
export interface Fault {
  /** Delay of the answer in milliseconds. */
  readonly delayMs?: number;
  /** Closes the connection, before the answer or in the middle of it. */
  readonly cut?: 'before' | 'middle';
  readonly status?: number;
  /** Replaces the text of the answer. */
  readonly text?: string;
  /** Changes `meta_info` of the answer. */
  readonly alter?: (meta: MetaInfo) => void;
}

export interface FakeSglangOptions {
  readonly vocabulary: number;
  readonly score: TokenScorer;
  /** Path of the model that the server reports. */
  readonly modelPath?: string;
  /** Maximum number of tokens in a request. Default: 4096. */
  readonly maxInput?: number;
  /** Number of tokens in a page of the radix cache. Only whole pages are reused. Default: 1. */
  readonly pageSize?: number;
  /** Returns the failure of a request to /generate. `index` is its number. */
  readonly fault?: (body: ScoreBody, index: number) => Fault | undefined;
  /** True if log-probabilities depend on the number of tokens in a run. Default: false. */
  readonly varies?: boolean;
  /** True if the temperature changes log-probabilities. Default: false. */
  readonly scales?: boolean;
  /** False if no tokens are reused. Default: true. */
  readonly caches?: boolean;
}

/** Number of requests whose tokens the radix cache holds. */
const CACHED = 256;

/**
 * HTTP server that answers like SGLang (documented semantics of /generate and /server_info), with
 * log-probabilities from one of our engines or from hashes. Its radix cache only counts tokens.
 */
export class FakeSglang {
  /** Bodies of the requests to /generate, in order. */
  readonly requests: ScoreBody[] = [];
  /** Number of tokens that each of the answers to /generate reused. */
  readonly cachedTokens: number[] = [];
  readonly options: FakeSglangOptions;
  readonly #server = createServer((request, response) => void this.#serve(request, response));
  #cached: (readonly number[])[] = [];

  /** Address, which remains known after the server has stopped. */
  url = '';
  port = 0;

  private constructor(options: FakeSglangOptions) {
    this.options = options;
  }

  /** Starts a server on a free port, or on the given one. */
  static async start(options: FakeSglangOptions, port = 0): Promise<FakeSglang> {
    const fake = new FakeSglang(options);
    await new Promise<void>((resolve) => fake.#server.listen(port, '127.0.0.1', resolve));
    fake.port = (fake.#server.address() as AddressInfo).port;
    fake.url = `http://127.0.0.1:${fake.port}`;
    return fake;
  }

  /** Stops the server and closes all connections. */
  async stop(): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.#server.closeAllConnections();
    await closed;
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = request.url ?? '';
    let text = '';
    for await (const chunk of request) text += chunk;
    const body: ScoreBody | undefined = path === '/generate' ? JSON.parse(text) : undefined;
    if (body) this.requests.push(body);
    const fault = (body && this.options.fault?.(body, this.requests.length - 1)) ?? {};
    if (fault.delayMs) await sleep(fault.delayMs, undefined, { ref: false });
    if (fault.cut === 'before') return void response.destroy();
    const { status, answer } = await this.#answer(path, body, fault).catch((error: Error) => {
      return { status: 400, answer: { error: { message: error.message } } as unknown };
    });
    const content = fault.text ?? JSON.stringify(answer);
    response.writeHead(fault.status ?? status, {
      'content-type': 'application/json',
      'content-length': content.length,
    });
    if (fault.cut === 'middle')
      return void response.write(content.slice(0, content.length / 2), () => response.destroy());
    response.end(content);
  }

  async #answer(
    path: string,
    body: ScoreBody | undefined,
    { alter }: Fault,
  ): Promise<{ status: number; answer: unknown }> {
    const { maxInput = 4096, pageSize = 1, caches = true } = this.options;
    if (path === '/server_info') {
      const answer = {
        version: '0.0.0-fake',
        model_path: this.options.modelPath,
        max_req_input_len: maxInput,
        page_size: pageSize,
        attention_backend: 'fa3',
        enable_deterministic_inference: !this.options.varies,
        disable_radix_cache: !caches,
        speculative_algorithm: null,
        tp_size: 1,
        dp_size: 1,
      };
      return { status: 200, answer };
    }
    if (!body) return { status: 404, answer: { detail: 'Not Found' } };
    return { status: 200, answer: await this.#generate(body, alter) };
  }

  async #generate(body: ScoreBody, alter: Fault['alter']): Promise<unknown> {
    const { vocabulary, score, maxInput = 4096, pageSize = 1, caches = true } = this.options;
    const { input_ids: ids, logprob_start_len: start = -1, return_logprob: scored } = body;
    if (ids.length > maxInput) {
      throw new Error(`Input length (${ids.length} tokens) exceeds the maximum allowed length (${maxInput} tokens)`);
    }
    const wrong = [...ids, ...(body.token_ids_logprob ?? [])].find((id) => id < 0 || id >= vocabulary);
    if (wrong !== undefined) throw new Error(`token id ${wrong} is outside the vocabulary of ${vocabulary}`);
    // The row of the first position with scores, and that of the last token, are computed anew.
    const reusable = Math.min(ids.length - 1, scored && start >= 0 ? start : ids.length);
    const shared = caches
      ? Math.min(reusable, Math.max(0, ...this.#cached.map((other) => sharedLength(other, ids))))
      : 0;
    const cached = shared - (shared % pageSize);
    const first = scored && start >= 0 ? start : ids.length - 1;
    // Nothing follows the last token of a request that generates nothing.
    const rows = await score(generatesNothing(body) ? ids.slice(0, -1) : ids, first);
    this.#cached = [...this.#cached.slice(1 - CACHED), ids];
    this.cachedTokens.push(cached);
    const meta = metaInfo(body, rows, cached, this.options);
    alter?.(meta);
    return { text: '', output_ids: [], meta_info: meta };
  }
}

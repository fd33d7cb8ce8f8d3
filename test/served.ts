import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { isGguf, loadManifest } from '@ptp/protocol/manifest';
import { serve } from '@ptp/protocol/server';
import type { Logger } from '@ptp/service-kit/log';
import { expect } from 'vitest';
import { Admission } from '../gateway/src/access/admission.ts';
import { ApiKeys } from '../gateway/src/access/api-keys.ts';
import { createHttp, HTTP_LIMITS } from '../gateway/src/app.ts';
import { PairGenerator } from '../gateway/src/decode/generate.ts';
import type { StepObserver } from '../gateway/src/decode/observer.ts';
import { GrammarCache } from '../gateway/src/grammar/cache.ts';
import { generationService } from '../gateway/src/grpc.ts';
import { TraceStore } from '../gateway/src/observe/trace-store.ts';
import { loadTextModel } from '../gateway/src/text/text-model.ts';
import { silent, TestPair, type TestPairOptions } from './test-pair.ts';

export interface GatewayOptions {
  readonly keys?: ApiKeys;
  readonly maxStreams?: number;
  readonly logger?: Logger;
  /** Observers in addition to the store of /traces. */
  readonly observers?: readonly StepObserver[];
  readonly pair?: TestPairOptions;
  /** Addresses of engines in other processes, whose model is the Hugging Face folder `path`. */
  readonly engines?: { readonly target: string; readonly drafter: string };
}

export type Served = Awaited<ReturnType<typeof serveGateway>>;

/**
 * Serves a model with the real services and a gateway over HTTP and gRPC. A GGUF file must be the default target's.
 */
export async function serveGateway(path: string, options: GatewayOptions = {}) {
  const { keys = new ApiKeys([]), maxStreams = 16, logger = silent, observers = [] } = options;
  const manifest = await loadManifest(path);
  const { tokenizer, chatTemplate } = await loadTextModel(path, manifest);
  const drafterFolder = join(import.meta.dirname, '..', 'models', 'default');
  const pair = options.engines
    ? await TestPair.remote(path, options.engines, options.pair)
    : isGguf(path)
      ? await TestPair.gguf(path, drafterFolder, options.pair)
      : await TestPair.onnx(path, options.pair);
  const settings = {
    ...HTTP_LIMITS,
    bodyLimit: 2 ** 20,
    stallMillis: 10_000,
    keepAliveMillis: 10_000,
    corsOrigins: '',
  };
  const admission = new Admission(maxStreams);
  const traces = new TraceStore(20);
  const limits = { length: 8, budget: 16, mode: 'overlap', ahead: 4 } as const;
  const generator = new PairGenerator(pair.services, limits, [traces, ...observers]);
  const grammars = new GrammarCache(tokenizer, generator.model);
  const app = await createHttp({
    generator,
    tokenizer,
    grammars,
    chatTemplate,
    admission,
    keys,
    settings,
    logger,
    traces,
  });
  await app.listen({ port: 0, host: '127.0.0.1' });
  const grpc = await serve({
    address: '127.0.0.1:0',
    logger,
    services: [generationService({ generator, tokenizer, grammars, admission, keys })],
  });
  const { port } = app.server.address() as AddressInfo;
  return {
    id: manifest.id,
    pair,
    url: `http://127.0.0.1:${port}/`,
    grpcAddress: grpc.address,
    close: async () => {
      await grpc.close(0);
      app.server.closeAllConnections();
      await app.close();
      await pair.stop();
    },
  };
}

/** Sends a JSON request, which must succeed. @returns the answer */
export async function postJson(url: string, path: string, body: object) {
  const response = await post(url, path, body);
  expect(response.status).toBe(200);
  return response.json();
}

/** Starts `count` streams, disconnects after the first bytes of each, and expects that no sequence stays open. */
export async function expectNothingLeft({ url, pair: { target, draft } }: Served, prompt: string, count: number) {
  const clients = Array.from({ length: count }, async (_, seed) => {
    const abort = new AbortController();
    const body = { prompt, max_tokens: 200, seed, stream: true, ignore_eos: true };
    const response = await post(url, 'v1/completions', body, abort.signal);
    await response.body?.getReader().read();
    abort.abort();
    return response.status;
  });
  expect(await Promise.all(clients)).toEqual(new Array(count).fill(200));
  const empty = { sequences: 0, cacheBytes: 0 };
  await expect.poll(() => [target.usage(), draft.usage()], { timeout: 20_000 }).toEqual([empty, empty]);
}

function post(url: string, path: string, body: object, signal?: AbortSignal): Promise<Response> {
  const headers = { 'content-type': 'application/json' };
  return fetch(new URL(path, url), { method: 'POST', headers, body: JSON.stringify(body), ...(signal && { signal }) });
}

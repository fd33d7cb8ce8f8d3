import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { createLogger } from '@ptp/service-kit/log';
import { Admission } from '../../src/access/admission.ts';
import { ApiKeys } from '../../src/access/api-keys.ts';
import { createHttp, HTTP_LIMITS, type HttpSettings } from '../../src/app.ts';
import type { ModelInfo } from '../../src/decode/types.ts';
import { GrammarCache } from '../../src/grammar/cache.ts';
import type { TraceStore } from '../../src/observe/trace-store.ts';
import { type ChatTemplate, loadChatTemplate } from '../../src/text/chat-template.ts';
import { loadTokenizer } from '../../src/text/json-tokenizer.ts';
import { ScriptedGenerator } from './scripted-generator.ts';

const folder = (path: string) => fileURLToPath(new URL(`../../../${path}`, import.meta.url));
export const tokenizer = await loadTokenizer(folder('test/fixtures'));
export const chatTemplate = await loadChatTemplate(folder('models/default'));

/** Returns steps of one token each. */
export const tokenByToken = (text: string): number[][] => tokenizer.encode(text).map((id) => [id]);

/**
 * A running server with a scripted generator.
 *
 * @param traces store that records requests. It records no calls, because a scripted generator makes none
 */
export async function startServer(
  settings: Partial<HttpSettings> & {
    readonly maxStreams?: number;
    readonly template?: ChatTemplate;
    readonly model?: Partial<ModelInfo>;
  } = {},
  keys = new ApiKeys([]),
  traces: TraceStore | undefined = undefined,
) {
  const { maxStreams = 64, template = chatTemplate, model = {}, ...limits } = settings;
  const generator = new ScriptedGenerator(model, traces ? [traces] : []);
  const logs: string[] = [];
  const logger = createLogger('gateway', { PTP_LOG_LEVEL: 'info' }, { write: (line) => void logs.push(line) });
  const admission = new Admission(maxStreams);
  const grammars = new GrammarCache(tokenizer, generator.model);
  const app = await createHttp({
    generator,
    tokenizer,
    grammars,
    chatTemplate: template,
    admission,
    keys,
    settings: { ...HTTP_LIMITS, corsOrigins: '', ...limits },
    logger,
    exposition: async () => ({ type: 'text/plain; charset=utf-8', text: '# none\n' }),
    traces,
  });
  await app.listen({ port: 0, host: '127.0.0.1' });
  const { port } = app.server.address() as { port: number };
  const url = `http://127.0.0.1:${port}`;
  const post = (path: string, body: unknown, init: RequestInit = {}) =>
    fetch(url + path, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: body instanceof Uint8Array || typeof body === 'string' ? (body as BodyInit) : JSON.stringify(body),
      ...init,
    });
  return {
    generator,
    logs,
    admission,
    port,
    url,
    post,
    complete: (body: object, init?: RequestInit) => post('/v1/completions', { model: 'default', ...body }, init),
    chat: (body: object, init?: RequestInit) => post('/v1/chat/completions', { model: 'default', ...body }, init),
    /** Returns true if the constraint of the last request allows the whole text. */
    isAllowed: (text: string): boolean => {
      let state = generator.requests.at(-1)?.grammar;
      for (const id of [...tokenizer.encode(text), generator.model.endOfText]) state = state?.after(id);
      return state !== undefined;
    },
    /** Closes the server once responses in progress have finished. */
    shutdown: () => app.close(),
    close: async () => {
      app.server.closeAllConnections();
      await app.close();
    },
  };
}

export type TestServer = Awaited<ReturnType<typeof startServer>>;

/** Returns the data of each server-sent event. */
export async function events(response: Response): Promise<string[]> {
  const body = await response.text();
  return body
    .split('\n\n')
    .filter((event) => event !== '')
    .map((event) => event.replace(/^data: /, ''));
}

export async function until(condition: () => boolean): Promise<void> {
  const deadline = Date.now() + 15_000;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error('the condition was not met within 15 s');
    await sleep(5);
  }
}

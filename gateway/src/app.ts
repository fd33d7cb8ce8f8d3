import { randomUUID } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import type { Server as HttpsServer } from 'node:https';
import { PtpError, toPtpError } from '@ptp/protocol/errors';
import type { Logger } from '@ptp/service-kit/log';
import type { Metrics } from '@ptp/service-kit/metrics';
import Fastify, { type FastifyBaseLogger, type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify';
import type { Admission } from './access/admission.ts';
import type { ApiKeys } from './access/api-keys.ts';
import { askForKeys } from './access/http-hook.ts';
import { type OnRefusal, tellRefusal } from './access/refusals.ts';
import type { Generator } from './decode/types.ts';
import type { Grammars } from './grammar/grammars.ts';
import { allowOrigins } from './http/cors.ts';
import { openAiError } from './http/errors.ts';
import { parseJson } from './http/json.ts';
import { refuseUnreadable } from './http/malformed.ts';
import { pageFiles } from './http/pages.ts';
import { refuse } from './http/reply.ts';
import { route } from './http/route.ts';
import { disconnectSignal } from './http/sse.ts';
import type { HttpsDoor } from './http/tls.ts';
import { traceFields, traceRoutes } from './observe/routes.ts';
import type { TraceStore } from './observe/trace-store.ts';
import { chatFormat } from './openai/chat.ts';
import { type ChoiceRequest, generateChoices, newUsage } from './openai/choices.ts';
import { completionFormat, defaultCompletionTokens, echoing } from './openai/completions.ts';
import { openApi } from './openai/openapi.ts';
import { checkLength, choiceRequests, encodePrompts } from './openai/prompt.ts';
import { type CommonRequest, chatRequest, checkModel, completionRequest } from './openai/request.ts';
import { responsesWriter } from './openai/responses.ts';
import { responsesRequest } from './openai/responses-request.ts';
import { choicesWriter, type Writer } from './openai/stream.ts';
import { tokenRoutes } from './openai/token-routes.ts';
import type { HttpSettings } from './settings.ts';
import type { ChatTemplate } from './text/chat-template.ts';
import type { Tokenizer } from './text/tokenizer.ts';

export interface HttpParts {
  readonly generator: Generator;
  readonly tokenizer: Tokenizer;
  readonly chatTemplate: ChatTemplate;
  readonly admission: Admission;
  readonly grammars: Grammars;
  readonly keys: ApiKeys;
  readonly settings: Pick<HttpSettings, 'bodyLimit' | 'stallMillis' | 'corsOrigins'>;
  readonly logger: Logger;
  /** HTTPS instead of HTTP. */
  readonly https?: HttpsDoor | undefined;
  /** What GET /metrics says. */
  readonly exposition?: Metrics['exposition'];
  readonly onRefusal?: OnRefusal;
  /** What /traces shows; nothing unless given. */
  readonly traces?: TraceStore | undefined;
}

/**
 * The OpenAI API (https://platform.openai.com/docs/api-reference) over a generator, with /healthz and /readyz, and the page at /. The
 * caller listens and closes; closing lets responses under way finish.
 */
export async function createHttp(parts: HttpParts): Promise<FastifyInstance> {
  const app = await createApp(parts);
  const clients = askForKeys(app, parts.keys);
  const { generator, tokenizer, chatTemplate, admission, grammars } = parts;
  const { model: modelInfo } = generator;
  const model = { id: modelInfo.modelId, object: 'model', created: Math.floor(Date.now() / 1000), owned_by: 'ptp' };

  for (const { path, send } of pageFiles()) route(app, 'GET', path, send);
  route(app, 'GET', '/healthz', async () => ({ status: 'ok' }));
  route(app, 'GET', '/readyz', async (_, reply) => {
    const { verifier, drafter } = generator.health();
    reply.code(verifier ? 200 : 503);
    return { ready: verifier, verifier, drafter, reasons: verifier ? [] : ['the verifier does not answer'] };
  });
  // beside OpenAI's fields, what the server found of its own promise
  const told = () => {
    const { batchInvariant = null } = generator.health();
    return { ...model, ptp: { batch_invariant: batchInvariant } };
  };
  route(app, 'GET', '/v1/models', async () => ({ object: 'list', data: [told()] }));
  route(app, 'GET', '/v1/models/*', async (request) => {
    checkModel((request.params as { '*': string })['*'], modelInfo);
    return told();
  });
  const { exposition } = parts;
  if (exposition)
    route(app, 'GET', '/metrics', async (request, reply) => {
      const { type, text } = await exposition(request.headers.accept);
      return reply.type(type).send(text);
    });
  const description = openApi();
  route(app, 'GET', '/openapi.json', async () => description);
  tokenRoutes(app, parts);
  traceRoutes(app, parts.traces);
  route(app, 'POST', '/v1/completions', async (request, reply) => {
    const asked = completionRequest(request.body, modelInfo);
    return answer(request, reply, choicesWriter(completionFormat), asked, asked.prompts.length, async () => {
      const prompts = await encodePrompts(asked.prompts, tokenizer, modelInfo);
      const requests = choiceRequests(prompts, asked, defaultCompletionTokens, modelInfo, 'prompt');
      return asked.echo ? echoing(requests, asked, tokenizer, modelInfo) : requests;
    });
  });
  route(app, 'POST', '/v1/chat/completions', async (request, reply) => {
    const asked = chatRequest(request.body, modelInfo);
    const { toolUse } = asked;
    return answer(request, reply, choicesWriter(chatFormat(toolUse !== undefined)), asked, 1, async () => {
      const prompt = chatTemplate.encode(asked.messages, tokenizer, modelInfo, toolUse?.tools);
      return choiceRequests([prompt], asked, modelInfo.contextLength, modelInfo, 'messages');
    });
  });
  route(app, 'POST', '/v1/responses', async (request, reply) => {
    const asked = responsesRequest(request.body, modelInfo);
    return answer(request, reply, responsesWriter(asked), asked, 1, async () => {
      const prompt = chatTemplate.encode(asked.messages, tokenizer, modelInfo, asked.toolUse?.tools);
      return choiceRequests([prompt], asked, modelInfo.contextLength, modelInfo, 'input');
    });
  });
  return app;

  function answer(
    request: FastifyRequest,
    reply: FastifyReply,
    writer: Writer,
    asked: CommonRequest,
    promptCount: number,
    prepare: () => Promise<ChoiceRequest[]>,
  ): Promise<object | undefined> {
    const sequences = asked.n * promptCount;
    const client = clients.get(request);
    const admitted = <T>(work: () => Promise<T>) =>
      // a key that has what it may have must not have places kept for it
      client
        ? client.admission.run(sequences, () => admission.run(sequences, work, client))
        : admission.run(sequences, work);
    return admitted(async () => {
      const signal = disconnectSignal(reply.raw);
      const prepared = await prepare();
      checkLength(asked.prediction, tokenizer, modelInfo, 'prediction');
      const prediction = tokenizer.encodeContinued(asked.prediction);
      const more = {
        ...traceFields(request, asked.stream),
        ...(prediction.length > 0 && { prediction }),
        ...(asked.form && { grammar: grammars.start(asked.form) }),
      };
      const requests = prepared.map((p) => ({ ...p, ...more }));
      const promptTokens = requests.reduce((sum, { prompt }) => sum + prompt.length, 0) / asked.n;
      const usage = newUsage(promptTokens);
      const deltas = generateChoices(generator, tokenizer, requests, usage, signal);
      const run = { modelId: modelInfo.modelId, choices: requests.length, deltas, usage };
      try {
        if (!asked.stream) return await writer.whole(run);
        const options = {
          includeUsage: asked.includeUsage,
          stallMillis: parts.settings.stallMillis,
          onError: (error: unknown) => logFailure(request, error),
        };
        await writer.stream(run, options, reply);
        return undefined;
      } finally {
        request.log.info({ client: client?.name, choices: requests.length, stream: asked.stream, usage }, 'generated');
      }
    });
  }
}

const PROBES: ReadonlySet<string> = new Set(['/healthz', '/readyz', '/metrics']);

/** What all routes share: limits, JSON, request ids, errors and logs (of which none has prompt text). */
async function createApp({ settings, logger, onRefusal, https }: HttpParts): Promise<FastifyInstance> {
  const app = Fastify({
    ...(https && { https: https.options }),
    loggerInstance: logger as FastifyBaseLogger,
    logController: new Fastify.LogController({ disableRequestLogging: true, requestIdLogLabel: 'requestId' }),
    bodyLimit: settings.bodyLimit,
    genReqId: requestId,
    return503OnClosing: false,
    frameworkErrors: (error, request, reply) => onError(error, request as FastifyRequest, reply as FastifyReply),
    clientErrorHandler: refuseUnreadable,
  });
  https?.follow(app.server as unknown as HttpsServer, (err) =>
    logger.error({ err }, 'the certificate cannot be renewed'),
  );
  // first, so that refusals can be read too
  await allowOrigins(app, settings.corsOrigins);
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('application/json', { parseAs: 'buffer' }, async (_: unknown, body: Buffer) =>
    parseJson(body),
  );

  let closing = false;
  app.addHook('preClose', async () => {
    closing = true;
  });
  app.addHook('onRequest', async (request, reply) => {
    reply.header('x-request-id', request.id);
    if (closing) {
      reply.header('connection', 'close');
      throw new PtpError('unavailable', 'the server is shutting down');
    }
    if (request.is404) throw new PtpError('not_found', `Invalid URL (${request.method} ${path(request)})`);
  });
  app.addHook('onResponse', async (request, reply) => {
    const { method, routeOptions } = request;
    const millis = Math.round(reply.elapsedTime);
    const record = { method, route: routeOptions.url, status: reply.raw.statusCode, millis };
    // probes come every few seconds
    request.log[PROBES.has(routeOptions.url ?? '') ? 'debug' : 'info'](record, 'answered');
    // Kept-alive connections would hold up closing until they time out.
    if (closing) setImmediate(() => app.server.closeIdleConnections());
  });
  app.setErrorHandler((error, request: FastifyRequest, reply: FastifyReply) => {
    tellRefusal(error, onRefusal);
    onError(error, request, reply);
  });
  // Reached only through the hook above, which throws first; fastify runs hooks on unknown routes if this is set.
  app.setNotFoundHandler((_, reply) => reply.code(404).send());
  return app;
}

function onError(error: unknown, request: FastifyRequest, reply: FastifyReply): void {
  logFailure(request, error);
  const { status, body } = openAiError(error);
  // where nobody knows, as while all sequences are busy, soon
  if (status === 429) reply.header('retry-after', Math.ceil((toPtpError(error).retryAfterMs ?? 1000) / 1000));
  if (status === 401) reply.header('www-authenticate', 'Bearer');
  refuse(request, reply, status, body);
}

function logFailure(request: FastifyRequest, error: unknown): void {
  const { status, body } = openAiError(error);
  // A refusal's message may quote the request.
  if (status < 500) request.log.info({ status, code: toPtpError(error).code, param: body.error.param }, 'refused');
  else request.log.error({ err: error, status }, 'failed');
}

function requestId(request: IncomingMessage): string {
  const given = request.headers['x-request-id'];
  return typeof given === 'string' && /^[\w.:-]{1,128}$/.test(given)
    ? given
    : `req_${randomUUID().replaceAll('-', '')}`;
}

function path(request: FastifyRequest): string {
  return request.url.split('?', 1)[0] as string;
}

import type { IncomingMessage } from 'node:http';
import type { Server as HttpsServer } from 'node:https';
import cors from '@fastify/cors';
import { PtpError } from '@ptp/protocol/errors';
import type { Logger } from '@ptp/service-kit/log';
import type { Metrics } from '@ptp/service-kit/metrics';
import Fastify, { type FastifyBaseLogger, type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify';
import { type OnRejection, reportRejection } from './access/admission.ts';
import type { ApiKeys } from './access/api-keys.ts';
import { requireApiKeys } from './access/http-hook.ts';
import { rejectOtherMethods, rejectUnparsable, sendError } from './http/errors.ts';
import { newId } from './http/ids.ts';
import { parseJson } from './http/json.ts';
import { servePages } from './http/pages.ts';
import type { HttpsListener } from './http/tls.ts';
import { traceRoutes } from './observe/routes.ts';
import type { TraceStore } from './observe/trace-store.ts';
import { chatRoute } from './openai/chat.ts';
import { completionRoute } from './openai/completions.ts';
import { openApi } from './openai/openapi.ts';
import { checkModel } from './openai/request.ts';
import type { EndpointParts } from './openai/respond.ts';
import { responsesRoute } from './openai/responses.ts';
import { tokenRoutes } from './openai/token-routes.ts';

/** Settings of the HTTP server. */
export interface HttpSettings {
  /** Largest request body, in bytes. */
  readonly bodyLimit: number;
  /** Disconnect a client that has not read from its stream for this long. */
  readonly stallMillis: number;
  readonly corsOrigins: string;
}

/** Default limits; tests use smaller ones. */
export const HTTP_LIMITS = { bodyLimit: 4 * 1024 * 1024, stallMillis: 30_000 };

export interface HttpParts extends EndpointParts {
  readonly keys: ApiKeys;
  readonly settings: HttpSettings;
  readonly logger: Logger;
  /** Serves plain HTTP if absent. */
  readonly https?: HttpsListener | undefined;
  /** Source of GET /metrics. */
  readonly exposition?: Metrics['exposition'];
  readonly onRejection?: OnRejection;
  /** Source of /traces; no traces unless given. */
  readonly traces?: TraceStore | undefined;
}

/** The HTTP server. The caller listens and closes; closing lets responses in progress finish. */
export async function createHttp(parts: HttpParts): Promise<FastifyInstance> {
  const app = await createApp(parts);
  requireApiKeys(app, parts.keys);
  await servePages(app);
  operationRoutes(app, parts);
  modelRoutes(app, parts);
  completionRoute(app, parts);
  chatRoute(app, parts);
  responsesRoute(app, parts);
  tokenRoutes(app, parts);
  traceRoutes(app, parts.traces);
  const description = openApi();
  app.get('/openapi.json', async () => description);
  return app;
}

/** Health, readiness and metrics. */
function operationRoutes(app: FastifyInstance, { generator, exposition }: HttpParts): void {
  app.get('/healthz', async () => ({ status: 'ok' }));
  app.get('/readyz', async (_, reply) => {
    const { verifier, drafter } = generator.health();
    reply.code(verifier ? 200 : 503);
    return { ready: verifier, verifier, drafter, reasons: verifier ? [] : ['the verifier does not answer'] };
  });
  if (!exposition) return;
  app.get('/metrics', async (request, reply) => {
    const { type, text } = await exposition(request.headers.accept);
    return reply.type(type).send(text);
  });
}

/** The list of models, which has one entry. */
function modelRoutes(app: FastifyInstance, { generator }: HttpParts): void {
  const { model } = generator;
  const { modelId: id, contextLength: max_model_len, engine, quantization, candidateLimit = null } = model;
  const created = Math.floor(Date.now() / 1000);
  const describe = () => {
    const { batchInvariant = null } = generator.health();
    const ptp = { engine, quantization, batch_invariant: batchInvariant, candidate_limit: candidateLimit };
    return { id, object: 'model', created, owned_by: 'ptp', max_model_len, ptp };
  };
  app.get('/v1/models', async () => ({ object: 'list', data: [describe()] }));
  // A wildcard, since model ids may contain slashes.
  app.get('/v1/models/*', async (request) => {
    checkModel((request.params as { '*': string })['*'], model);
    return describe();
  });
}

/** Probes come every few seconds, so they are logged at debug level only. */
const PROBES: ReadonlySet<string> = new Set(['/healthz', '/readyz', '/metrics']);

/** Fastify with everything that all routes share: limits, JSON, CORS, request ids, errors, and logs without prompt text. */
async function createApp({ settings, logger, onRejection, https }: HttpParts): Promise<FastifyInstance> {
  const app = Fastify({
    ...(https && { https: https.options }),
    loggerInstance: logger as FastifyBaseLogger,
    logController: new Fastify.LogController({ disableRequestLogging: true, requestIdLogLabel: 'requestId' }),
    bodyLimit: settings.bodyLimit,
    genReqId: requestId,
    return503OnClosing: false,
    frameworkErrors: (error, request, reply) => sendError(error, request as FastifyRequest, reply as FastifyReply),
    clientErrorHandler: rejectUnparsable,
  });
  https?.follow(app.server as unknown as HttpsServer, (err) => logger.error({ err }, 'cannot renew the certificate'));
  rejectOtherMethods(app);
  // Before all other hooks, so that browsers can read rejections too.
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
    if (request.is404) {
      throw new PtpError('not_found', `Invalid URL (${request.method} ${request.url.split('?', 1)[0]})`);
    }
  });
  app.addHook('onResponse', async (request, reply) => {
    const { method, routeOptions } = request;
    const millis = Math.round(reply.elapsedTime);
    const record = { method, route: routeOptions.url, status: reply.raw.statusCode, millis };
    request.log[PROBES.has(routeOptions.url ?? '') ? 'debug' : 'info'](record, 'answered');
    // Idle keep-alive connections would delay closing until they time out.
    if (closing) setImmediate(() => app.server.closeIdleConnections());
  });
  app.setErrorHandler((error, request: FastifyRequest, reply: FastifyReply) => {
    reportRejection(error, onRejection);
    sendError(error, request, reply);
  });
  // Never reached, since the hook above throws first; Fastify runs hooks for unknown routes only if this is set.
  app.setNotFoundHandler((_, reply) => reply.code(404).send());
  return app;
}

/**
 * Lets pages of other origins call the API (https://fetch.spec.whatwg.org/#http-cors-protocol), without credentials:
 * clients authenticate with keys, not cookies.
 *
 * @param origins comma-separated; `*` for all, empty for none
 */
async function allowOrigins(app: FastifyInstance, origins: string): Promise<void> {
  const allowed = origins
    .split(',')
    .map((origin) => origin.trim())
    .filter(Boolean);
  if (allowed.length === 0) return;
  const rateHeaders = ['limit', 'remaining', 'reset'].map((name) => `x-ratelimit-${name}-requests`);
  await app.register(cors, {
    origin: allowed.includes('*') ? '*' : allowed,
    methods: ['GET', 'POST'],
    exposedHeaders: ['x-request-id', 'retry-after', ...rateHeaders],
    maxAge: 600,
  });
}

/** The client's `x-request-id` if it is safe to log, else a new id. */
function requestId(request: IncomingMessage): string {
  const given = request.headers['x-request-id'];
  return typeof given === 'string' && /^[\w.:-]{1,128}$/.test(given) ? given : newId('req_');
}

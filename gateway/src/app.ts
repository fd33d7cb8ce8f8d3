import type { IncomingMessage } from 'node:http';
import type { Server as HttpsServer } from 'node:https';
import cors from '@fastify/cors';
import { connectionLimit } from '@ptp/protocol/connection-limit';
import { PtpError } from '@ptp/protocol/errors';
import type { Logger } from '@ptp/service-kit/log';
import type { Metrics } from '@ptp/service-kit/metrics';
import { OutageLog } from '@ptp/service-kit/outage-log';
import Fastify, { type FastifyBaseLogger, type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify';
import { type OnRejection, reportRejection } from './access/admission.ts';
import type { ApiKeys } from './access/api-keys.ts';
import { requireApiKeys } from './access/http-hook.ts';
import { decodeBody } from './http/content-encoding.ts';
import { rejectExpectation, rejectOtherMethods, rejectUnparsable, sendError } from './http/errors.ts';
import { newId } from './http/ids.ts';
import { parseJson } from './http/json.ts';
import { checkJsonSize } from './http/json-size.ts';
import { servePages } from './http/pages.ts';
import { BodyBudget, readBody } from './http/request-body.ts';
import { checkLocalHost, checkTransferEncoding } from './http/request-checks.ts';
import type { HttpsListener } from './http/tls.ts';
import { traceRoutes } from './observe/routes.ts';
import type { TraceStore } from './observe/trace-store.ts';
import { chatRoute } from './openai/chat.ts';
import { completionRoute } from './openai/completions.ts';
import { openApi } from './openai/openapi.ts';
import { checkModel } from './openai/request.ts';
import type { EndpointParts } from './openai/respond.ts';
import { responsesRoute } from './openai/responses.ts';
import type { StreamSettings } from './openai/stream.ts';
import { tokenRoutes } from './openai/token-routes.ts';

/** Settings of the HTTP server. */
export interface HttpSettings extends StreamSettings {
  /** Maximum size of a request body in bytes. */
  readonly bodyLimit: number;
  readonly corsOrigins: string;
  /** Maximum total number of bytes of the request bodies that are still arriving. */
  readonly arrivingLimit: number;
  /** Maximum time in milliseconds for a request to arrive completely. */
  readonly arrivalMillis: number;
  /** True if only this machine can reach the server, and clients need no key. The Host header is then checked. */
  readonly localOnly?: boolean;
}

/** Limits of the server. Tests use smaller ones. */
export const HTTP_LIMITS = {
  bodyLimit: 4 * 1024 * 1024,
  stallMillis: 30_000,
  keepAliveMillis: 10_000,
  arrivingLimit: 128 * 1024 * 1024,
  arrivalMillis: 60_000,
};

/** Interval in milliseconds between checks for requests that stop arriving. */
const ARRIVAL_CHECK_MS = 1_000;

export interface HttpParts extends EndpointParts {
  readonly keys: ApiKeys;
  readonly settings: HttpSettings;
  readonly logger: Logger;
  /** TLS credentials. Without them, the server uses plain HTTP. */
  readonly https?: HttpsListener | undefined;
  /** Function that returns the content of GET /metrics. Without it, the route does not exist. */
  readonly exposition?: Metrics['exposition'];
  readonly onRejection?: OnRejection;
  /** Traces for /traces. Without them, tracing is off. */
  readonly traces?: TraceStore | undefined;
}

/** Creates the HTTP server. The caller starts and closes it. Closing lets responses in progress finish. */
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

/** Adds the routes for health, readiness and metrics. */
function operationRoutes(app: FastifyInstance, { generator, exposition }: HttpParts): void {
  // vLLM and SGLang answer at /health, Kubernetes' own services at /healthz.
  for (const path of ['/healthz', '/health']) app.get(path, async () => ({ status: 'ok' }));
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

/** Adds the routes that list the models. There is only one. */
function modelRoutes(app: FastifyInstance, { generator }: HttpParts): void {
  const { model } = generator;
  const { modelId: id, contextLength: max_model_len } = model;
  const created = Math.floor(Date.now() / 1000);
  const describe = () => {
    const served = { ...model, ...generator.health() };
    const { engine, quantization, device, candidateLimit = null, batchInvariant = null } = served;
    const { hasDrafter: drafter = true, hasChatTemplate: chat_template = false } = served;
    const answers = { batch_invariant: batchInvariant, candidate_limit: candidateLimit };
    const ptp = { engine, quantization, device, ...answers, drafter, chat_template };
    return { id, object: 'model', created, owned_by: 'ptp', max_model_len, ptp };
  };
  app.get('/v1/models', async () => ({ object: 'list', data: [describe()] }));
  // The route has a wildcard, because model ids may contain slashes.
  app.get('/v1/models/*', async (request) => {
    checkModel((request.params as { '*': string })['*'], model);
    return describe();
  });
}

/** Routes that are called every few seconds and therefore logged at debug level only. */
const PROBES: ReadonlySet<string> = new Set(['/healthz', '/health', '/readyz', '/metrics']);

/** Creates a server with everything that the routes share: limits, JSON, CORS, request ids, errors and access logs. */
async function createApp({ settings, logger, onRejection, https }: HttpParts): Promise<FastifyInstance> {
  const parsing = {
    connectionsCheckingInterval: Math.min(ARRIVAL_CHECK_MS, settings.arrivalMillis),
    // If the timeout of headers exceeded that of whole requests, Node would never notice a body that stops arriving.
    headersTimeout: settings.arrivalMillis,
    // Node would reject a request without Host with an empty body. The hook below sends an error.
    requireHostHeader: false,
  };
  const app = Fastify({
    ...(https ? { https: { ...https.options, ...parsing } } : { http: parsing }),
    requestTimeout: settings.arrivalMillis,
    loggerInstance: logger as FastifyBaseLogger,
    logController: new Fastify.LogController({ disableRequestLogging: true, requestIdLogLabel: 'requestId' }),
    bodyLimit: settings.bodyLimit,
    routerOptions: { ignoreTrailingSlash: true },
    genReqId: requestId,
    return503OnClosing: false,
    frameworkErrors: (error, request, reply) => sendError(error, request as FastifyRequest, reply as FastifyReply),
    clientErrorHandler: rejectUnparsable,
  });
  app.decorate('outage', new OutageLog(logger, 'requests fail with status 503'));
  const origins = originsOf(settings.corsOrigins);
  app.server.maxConnections = connectionLimit();
  https?.follow(app.server as unknown as HttpsServer);
  app.server.on('checkExpectation', rejectExpectation);
  rejectOtherMethods(app);
  // This hook runs before all others, so that browsers can read rejections too.
  await allowOrigins(app, origins);
  app.removeAllContentTypeParsers();
  const arriving = new BodyBudget(settings.arrivingLimit);
  app.addContentTypeParser('application/json', async (request: FastifyRequest, payload: IncomingMessage) => {
    const body = await readBody(payload, settings.bodyLimit, arriving);
    const decoded = await decodeBody(body, request.headers['content-encoding'], settings.bodyLimit);
    await checkJsonSize(decoded);
    return parseJson(decoded);
  });

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
    if (request.headers.host === undefined && request.raw.httpVersion === '1.1') {
      throw new PtpError('invalid_argument', 'the request has no `Host` header, which HTTP/1.1 requires');
    }
    checkTransferEncoding(request.headers);
    if (settings.localOnly) checkLocalHost(request.headers, origins);
    if (request.is404) {
      throw new PtpError('not_found', `Invalid URL (${request.method} ${request.url.split('?', 1)[0]})`);
    }
  });
  app.addHook('onSend', async (_, reply) => {
    if (closing) reply.header('connection', 'close');
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
  // This handler is never called, because the hook above throws first. But without a handler, Fastify runs no hooks for
  // unknown routes.
  app.setNotFoundHandler((_, reply) => reply.code(404).send());
  return app;
}

/**
 * Allows pages from other origins to call the API (https://fetch.spec.whatwg.org/#http-cors-protocol), but without
 * cookies, because clients authenticate with keys.
 *
 * @param allowed origins of the pages. `*` allows all origins
 */
async function allowOrigins(app: FastifyInstance, allowed: string[]): Promise<void> {
  if (allowed.length === 0) return;
  const rateHeaders = ['limit', 'remaining', 'reset'].map((name) => `x-ratelimit-${name}-requests`);
  await app.register(cors, {
    origin: allowed.includes('*') ? '*' : allowed,
    methods: ['GET', 'POST'],
    exposedHeaders: ['x-request-id', 'retry-after', ...rateHeaders],
    maxAge: 600,
  });
}

/** Returns the origins of a comma-separated list. */
function originsOf(origins: string): string[] {
  return origins
    .split(',')
    .map((origin) => origin.trim())
    .filter(Boolean);
}

/** Returns the client's `x-request-id` if it is safe to log, or else a new id. */
function requestId(request: IncomingMessage): string {
  const given = request.headers['x-request-id'];
  return typeof given === 'string' && /^[\w.:-]{1,128}$/.test(given) ? given : newId('req_');
}

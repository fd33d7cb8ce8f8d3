import type { IncomingMessage, OutgoingHttpHeaders, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { type ErrorCode, publicMessage, toPtpError, wireErrors } from '@ptp/protocol/errors';
import { invalidField } from '@ptp/protocol/validation';
import type { OutageLog } from '@ptp/service-kit/outage-log';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { UNKNOWN_ENCODING } from './content-encoding.ts';
import { newId } from './ids.ts';

type OpenAiErrorBody = ReturnType<typeof errorBody>;

/** Returns the HTTP status and body for any thrown value. */
export function openAiError(error: unknown): { status: number; body: OpenAiErrorBody } {
  const rejection = frameworkRejection(error);
  if (rejection) return { status: rejection.status, body: errorBody(rejection.message, 'invalid_request_error') };
  const { code, field } = toPtpError(error);
  const { http, openai } = wireErrors[code];
  return { status: http, body: errorBody(publicMessage(error), openai, field, openAiCode(code, field)) };
}

/** Logs an error and sends it in the form of OpenAI's API. */
export function sendError(error: unknown, request: FastifyRequest, reply: FastifyReply): void {
  logError(error, request);
  const { status, body } = openAiError(error);
  // No retry hint is available if the server is full, so suggest 1 s.
  if (status === 429) reply.header('retry-after', Math.ceil((toPtpError(error).retryAfterMs ?? 1000) / 1000));
  if (status === 401) reply.header('www-authenticate', 'Bearer');
  sendErrorBody(request, reply, status, body);
}

/** Logs an error. For rejected requests, the message is omitted, because it may quote the request. */
export function logError(error: unknown, request: FastifyRequest): void {
  const { status, body } = openAiError(error);
  if (status < 500) request.log.info({ status, code: toPtpError(error).code, param: body.error.param }, 'rejected');
  else if (status === 503) request.server.outage.report({ requestId: request.id, reason: body.error.message });
  else request.log.error({ err: error, status }, 'failed');
}

declare module 'fastify' {
  interface FastifyInstance {
    /** Log of outages: while no verifier is reachable, for example, all requests fail with status 503. */
    readonly outage: OutageLog;
  }
}

/** Responds with status 405 to the other methods of each route that is registered after this call. */
export function rejectOtherMethods(app: FastifyInstance): void {
  app.addHook('onRoute', ({ method, url }) => {
    if (method !== 'GET' && method !== 'POST') return;
    const allowed = method === 'GET' ? ['GET', 'HEAD'] : [method];
    app.route({
      method: ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'].filter((other) => !allowed.includes(other)),
      url,
      onRequest: (request, reply) => {
        reply.header('allow', allowed.join(', '));
        const message = `this path does not allow ${request.method}: use ${allowed.join(' or ')}`;
        sendErrorBody(
          request,
          reply,
          405,
          errorBody(message, 'invalid_request_error', undefined, 'method_not_allowed'),
        );
      },
      handler: () => undefined,
    });
  });
}

const PARSER_ERRORS: Readonly<Record<string, readonly [status: string, message: string]>> = {
  HPE_HEADER_OVERFLOW: ['431 Request Header Fields Too Large', 'the headers are larger than 16 KiB'],
  ERR_HTTP_REQUEST_TIMEOUT: ['408 Request Timeout', 'the request did not arrive in time'],
};

/**
 * Responds to requests that Node's HTTP parser rejects, and closes the connection, because the start of the next
 * request is unknown.
 */
export function rejectUnparsable(error: Error & { readonly code?: string }, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy();
    return;
  }
  const [status, message] = PARSER_ERRORS[error.code ?? ''] ?? ['400 Bad Request', 'the request is not valid HTTP/1.1'];
  const body = JSON.stringify(errorBody(message, 'invalid_request_error'));
  // A client that never closes its side must not keep the socket.
  const timer = setTimeout(() => socket.destroy(), LINGER_MS);
  socket.once('close', () => clearTimeout(timer));
  socket.end(
    [
      `HTTP/1.1 ${status}`,
      'content-type: application/json; charset=utf-8',
      `content-length: ${Buffer.byteLength(body)}`,
      `x-request-id: ${newId('req_')}`,
      'connection: close',
      '',
      body,
    ].join('\r\n'),
  );
}

/** Responds to a request whose `Expect` header has a value other than `100-continue`. */
export function rejectExpectation({ headers: { expect } }: IncomingMessage, response: ServerResponse): void {
  const { message } = invalidField('expect', '100-continue or absent', expect);
  const body = JSON.stringify(errorBody(message, 'invalid_request_error', 'expect'));
  response.writeHead(417, {
    'content-type': 'application/json; charset=utf-8',
    'content-length': Buffer.byteLength(body),
    'x-request-id': newId('req_'),
    connection: 'close',
  });
  response.end(body);
}

/** Maximum time in milliseconds for which the rest of a rejected request's body is read and dropped. */
const LINGER_MS = 2_000;

/**
 * Sends an error. If the request's body is still arriving, the connection is closed only after the rest of the body has
 * been read. Closing the connection at once would reset it, and the client might never see the error (RFC 9112, section
 * 9.6).
 */
function sendErrorBody(request: FastifyRequest, reply: FastifyReply, status: number, body: OpenAiErrorBody): void {
  if (request.raw.complete || request.raw.destroyed) {
    reply.code(status).send(body);
    return;
  }
  reply.hijack();
  const text = JSON.stringify(body);
  reply.raw.writeHead(status, {
    ...(reply.getHeaders() as OutgoingHttpHeaders),
    'content-type': 'application/json; charset=utf-8',
    'content-length': Buffer.byteLength(text),
    connection: 'close',
  });
  reply.raw.write(text);
  const finish = () => {
    clearTimeout(timer);
    reply.raw.end();
  };
  const timer = setTimeout(finish, LINGER_MS);
  request.raw.once('end', finish).once('close', finish).resume();
}

/** Returns an error in the format of OpenAI's API. @param param name of the invalid request field */
function errorBody(message: string, type: string, param?: string, code?: string) {
  return { error: { message, type, param: param ?? null, code: code ?? null } };
}

/** Returns the `code` that OpenAI's clients check for. */
function openAiCode(code: ErrorCode, field: string | undefined): string | undefined {
  if (code === 'not_found' && field === 'model') return 'model_not_found';
  if (code === 'out_of_range') return 'context_length_exceeded';
  if (code === 'unauthenticated') return 'invalid_api_key';
  if (code === 'resource_exhausted') return 'rate_limit_exceeded';
  return undefined;
}

const FRAMEWORK_MESSAGES: Readonly<Record<string, string>> = {
  FST_ERR_CTP_INVALID_MEDIA_TYPE: 'the content type must be application/json',
  // Fastify's code for a client that disconnects while it sends the body.
  ECONNRESET: 'the request body is incomplete',
};

/** Returns the status and the message of a request that Fastify itself rejected, before any handler. */
function frameworkRejection(error: unknown): { status: number; message: string } | undefined {
  const { code, statusCode, message } = (error ?? {}) as { code?: unknown; statusCode?: unknown; message?: unknown };
  if (typeof code !== 'string') return undefined;
  if (!(code.startsWith('FST_ERR_') || code === 'ECONNRESET' || code === UNKNOWN_ENCODING)) return undefined;
  if (typeof statusCode !== 'number' || statusCode >= 500) return undefined;
  return { status: statusCode, message: FRAMEWORK_MESSAGES[code] ?? String(message) };
}

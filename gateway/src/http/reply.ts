import type { ServerResponse } from 'node:http';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { OpenAiErrorBody } from './errors.ts';

/** The response itself, for a handler that writes it; headers that are set already stay. */
export function takeOver(reply: FastifyReply): ServerResponse {
  reply.hijack();
  for (const [name, value] of Object.entries(reply.getHeaders())) {
    if (value !== undefined) reply.raw.setHeader(name, value);
  }
  return reply.raw;
}

/** How long the rest of a refused body is read and dropped. */
const lingerMillis = 2_000;

/**
 * Sends an error. When the request's body is still coming, the connection is closed after it, though not at once:
 * that would reset it, and the client might never see the answer (RFC 9112, section 9.6).
 */
export function refuse(request: FastifyRequest, reply: FastifyReply, status: number, body: OpenAiErrorBody): void {
  if (request.raw.complete || request.raw.destroyed) {
    reply.code(status).send(body);
    return;
  }
  const response = takeOver(reply);
  const text = JSON.stringify(body);
  response.writeHead(status, {
    'content-type': 'application/json; charset=utf-8',
    'content-length': Buffer.byteLength(text),
    connection: 'close',
  });
  response.write(text);
  const finish = () => {
    clearTimeout(timer);
    response.end();
  };
  const timer = setTimeout(finish, lingerMillis);
  request.raw.once('end', finish).once('close', finish).resume();
}

import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { errorBody } from './errors.ts';
import { refuse } from './reply.ts';

/** Registers a route; its other methods answer 405. */
export function route(
  app: FastifyInstance,
  method: 'GET' | 'POST',
  url: string,
  handler: (request: FastifyRequest, reply: FastifyReply) => Promise<unknown>,
): void {
  const allowed = method === 'GET' ? ['GET', 'HEAD'] : [method];
  app.route({ method, url, handler });
  app.route({
    method: ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'].filter((other) => !allowed.includes(other)),
    url,
    onRequest: (request, reply) => {
      reply.header('allow', allowed.join(', '));
      const message = `${request.method} is not allowed here; use ${allowed.join(' or ')}`;
      refuse(request, reply, 405, errorBody(message, 'invalid_request_error', undefined, 'method_not_allowed'));
    },
    handler: () => undefined,
  });
}

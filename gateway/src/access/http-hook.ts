import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { ApiKeys, Client } from './api-keys.ts';

/** Routes that need a key: those that use the model or its tokenizer, and those that show other requests. */
const PROTECTED = /^\/(v1|tokenize|detokenize|traces\.json|traces\/\*)(\/|$)/;

const clients = new WeakMap<FastifyRequest, Client>();

/** The client whose key a request carries; undefined if the server has no keys or the route needs none. */
export function clientOf(request: FastifyRequest): Client | undefined {
  return clients.get(request);
}

/** Checks the key and the rate of each request before its body is read. */
export function requireApiKeys(app: FastifyInstance, keys: ApiKeys): void {
  app.addHook('onRequest', async (request, reply) => {
    if (!PROTECTED.test(request.routeOptions.url ?? '')) return;
    const client = keys.client(request.headers.authorization);
    if (!client) return;
    clients.set(request, client);
    try {
      client.take();
    } finally {
      setRateHeaders(reply, client);
    }
  });
}

/** Headers of OpenAI's API, sent with rejections too. */
function setRateHeaders(reply: FastifyReply, { rate }: Client): void {
  if (!rate) return;
  reply.headers({
    'x-ratelimit-limit-requests': rate.limit,
    'x-ratelimit-remaining-requests': rate.remaining,
    'x-ratelimit-reset-requests': `${(rate.resetMillis / 1000).toFixed(3)}s`,
  });
}

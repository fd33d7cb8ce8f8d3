import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { ApiKeys, Client } from './api-keys.ts';

/** Routes that require a key, because they use the model or its tokenizer, or show the requests of other clients. */
const PROTECTED = /^\/(v1|tokenize|detokenize|traces\.json|traces\/\*)(\/|$)/;

const clients = new WeakMap<FastifyRequest, Client>();

/** Returns the client whose key a request carries, or undefined if the server or the route requires no key. */
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

/** Sets the rate-limit headers of OpenAI's API, on rejections too. */
function setRateHeaders(reply: FastifyReply, { rate }: Client): void {
  if (!rate) return;
  reply.headers({
    'x-ratelimit-limit-requests': rate.limit,
    'x-ratelimit-remaining-requests': rate.remaining,
    'x-ratelimit-reset-requests': `${(rate.resetMillis / 1000).toFixed(3)}s`,
  });
}

import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { ApiKeys, Client } from './api-keys.ts';

/** Where a key is needed, if any are asked for: whatever the model or its tokenizer works for, and what tells of others' requests. */
const NEEDS_KEY = /^\/(v1|tokenize|detokenize|traces\.json|traces\/\*)(\/|$)/;

/** Has requests checked for their keys, before their bodies are read. @returns whose a request is */
export function askForKeys(app: FastifyInstance, keys: ApiKeys): WeakMap<FastifyRequest, Client> {
  const clients = new WeakMap<FastifyRequest, Client>();
  app.addHook('onRequest', async (request, reply) => {
    if (!NEEDS_KEY.test(request.routeOptions.url ?? '')) return;
    const client = keys.client(request.headers.authorization);
    if (!client) return;
    clients.set(request, client);
    try {
      client.take();
    } finally {
      tellRate(reply, client);
    }
  });
  return clients;
}

/** As OpenAI's API tells it, with a refusal too. */
function tellRate(reply: FastifyReply, { rate }: Client): void {
  if (!rate) return;
  reply.headers({
    'x-ratelimit-limit-requests': rate.limit,
    'x-ratelimit-remaining-requests': rate.remaining,
    'x-ratelimit-reset-requests': `${(rate.resetMillis / 1000).toFixed(3)}s`,
  });
}

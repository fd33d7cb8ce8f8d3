import cors from '@fastify/cors';
import type { FastifyInstance } from 'fastify';

/**
 * Lets pages of other origins call the API (https://fetch.spec.whatwg.org/#http-cors-protocol). Without credentials: who may ask is told by
 * keys, not by cookies.
 *
 * @param origins with commas between them; `*` for all, empty for none
 */
export async function allowOrigins(app: FastifyInstance, origins: string): Promise<void> {
  const given = origins
    .split(',')
    .map((origin) => origin.trim())
    .filter((origin) => origin !== '');
  if (given.length === 0) return;
  await app.register(cors, {
    origin: given.includes('*') ? '*' : given,
    methods: ['GET', 'POST'],
    exposedHeaders: [
      'x-request-id',
      'retry-after',
      'x-ratelimit-limit-requests',
      'x-ratelimit-remaining-requests',
      'x-ratelimit-reset-requests',
    ],
    maxAge: 600,
  });
}

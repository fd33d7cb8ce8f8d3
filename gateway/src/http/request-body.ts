import type { IncomingMessage } from 'node:http';
import { PtpError } from '@ptp/protocol/errors';
import { errorCodes } from 'fastify';

/** Limits the memory of request bodies that are still arriving, summed over all connections. */
export class BodyBudget {
  readonly #limit: number;
  #held = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  get held(): number {
    return this.#held;
  }

  /** @throws PtpError `resource_exhausted` if the bodies that are arriving would exceed the limit */
  take(bytes: number): void {
    if (this.#held + bytes > this.#limit) {
      const message = `overloaded: the request bodies that are arriving must have at most ${this.#limit} bytes together`;
      throw new PtpError('resource_exhausted', message);
    }
    this.#held += bytes;
  }

  release(bytes: number): void {
    this.#held -= bytes;
  }
}

/** Properties with which Fastify marks the error of a body that ends early. */
const INCOMPLETE = { code: 'ECONNRESET', statusCode: 400 };

/**
 * Reads a request's body.
 *
 * @param limit maximum number of bytes of the body
 * @throws PtpError `resource_exhausted` if the budget is used up, or Fastify's error for a body that is too large or
 *   incomplete
 */
export async function readBody(request: IncomingMessage, limit: number, budget: BodyBudget): Promise<Buffer> {
  const announced = Number(request.headers['content-length'] ?? Number.NaN);
  if (announced > limit) throw new errorCodes.FST_ERR_CTP_BODY_TOO_LARGE();
  const chunks: Buffer[] = [];
  let length = 0;
  try {
    for await (const chunk of request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
      if (length + chunk.length > limit) throw new errorCodes.FST_ERR_CTP_BODY_TOO_LARGE();
      budget.take(chunk.length);
      length += chunk.length;
      chunks.push(chunk);
    }
  } catch (cause) {
    // A client that disconnects while it sends the body.
    if (request.destroyed && !(cause instanceof PtpError))
      throw Object.assign(new Error('incomplete', { cause }), INCOMPLETE);
    throw cause;
  } finally {
    budget.release(length);
  }
  if (!Number.isNaN(announced) && announced !== length) throw new errorCodes.FST_ERR_CTP_INVALID_CONTENT_LENGTH();
  return Buffer.concat(chunks, length);
}

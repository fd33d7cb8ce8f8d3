import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { extname, join } from 'node:path';
import type { FastifyReply, FastifyRequest } from 'fastify';

const FOLDER = join(import.meta.dirname, '..', 'web');
const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
};

/** The page asks nothing of anybody but this server, and runs no script that is not a file of it. */
const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "connect-src 'self'",
  "img-src 'self' data:",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ');

/** A file of gateway/web under its path. */
export interface PageFile {
  readonly path: string;
  send(request: FastifyRequest, reply: FastifyReply): Promise<unknown>;
}

/** The files of the pages at `/` and `/traces`, read once. A browser asks each time whether its copy is still the one. */
export function pageFiles(): PageFile[] {
  return readdirSync(FOLDER)
    .filter((name) => extname(name) in TYPES)
    .map((name) => {
      const body = readFileSync(join(FOLDER, name));
      const etag = `"${createHash('sha256').update(body).digest('base64url')}"`;
      const send = async (request: FastifyRequest, reply: FastifyReply) => {
        reply.headers({
          'content-type': TYPES[extname(name)],
          'cache-control': 'no-cache',
          etag,
          'content-security-policy': POLICY,
          'x-content-type-options': 'nosniff',
          'referrer-policy': 'no-referrer',
        });
        return request.headers['if-none-match'] === etag ? reply.code(304).send() : body;
      };
      return { path: name === 'index.html' ? '/' : `/${name.replace(/\.html$/, '')}`, send };
    });
}

import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { extname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { FastifyReply, FastifyRequest } from 'fastify';

const FOLDER = join(import.meta.dirname, '..', '..', 'web');
const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
};

/** Pages whose path is not their name. */
const PATHS: Readonly<Record<string, string>> = { 'index.html': '/', 'docs.html': '/docs', 'traces.html': '/traces' };

/** The pages ask nothing of anybody but this server, and run no script that is not a file of it. */
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

/** A file under its path. */
export interface PageFile {
  readonly path: string;
  send(request: FastifyRequest, reply: FastifyReply): Promise<unknown>;
}

/** The files of the pages at `/`, `/docs` and `/traces`, read once. A browser asks each time whether its copy is still the one. */
export function pageFiles(): PageFile[] {
  const own = readdirSync(FOLDER)
    .filter((name) => extname(name) in TYPES)
    .map((name) => pageFile(PATHS[name] ?? `/${name}`, join(FOLDER, name)));
  const swagger = ['swagger-ui.css', 'swagger-ui-bundle.js'].map((name) =>
    pageFile(`/${name}`, fileURLToPath(import.meta.resolve(`swagger-ui-dist/${name}`))),
  );
  return [...own, ...swagger];
}

function pageFile(path: string, file: string): PageFile {
  const body = readFileSync(file);
  const etag = `"${createHash('sha256').update(body).digest('base64url')}"`;
  const send = async (request: FastifyRequest, reply: FastifyReply) => {
    reply.headers({
      'content-type': TYPES[extname(file)],
      'cache-control': 'no-cache',
      etag,
      'content-security-policy': POLICY,
      'x-content-type-options': 'nosniff',
      'referrer-policy': 'no-referrer',
    });
    return request.headers['if-none-match'] === etag ? reply.code(304).send() : body;
  };
  return { path, send };
}

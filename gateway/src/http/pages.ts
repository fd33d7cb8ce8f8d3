import { readdirSync } from 'node:fs';
import { dirname, extname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import fastifyStatic from '@fastify/static';
import type { FastifyInstance } from 'fastify';

const WEB = join(import.meta.dirname, '..', '..', 'web');
const SWAGGER = dirname(fileURLToPath(import.meta.resolve('swagger-ui-dist/swagger-ui.css')));
const SWAGGER_FILES = ['swagger-ui.css', 'swagger-ui-bundle.js'];

/** Paths of the pages. Other files are served under their own names. */
const PATHS: Readonly<Record<string, string>> = { 'index.html': '/', 'docs.html': '/docs', 'traces.html': '/traces' };

/**
 * Content security policy of the pages. They may connect only to this server, and load scripts and styles only from its
 * files.
 */
const CONTENT_SECURITY_POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "connect-src 'self'",
  "img-src 'self' data:",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ');

const HEADERS = {
  // Browsers revalidate their copy at each use, with its ETag.
  'cache-control': 'no-cache',
  'content-security-policy': CONTENT_SECURITY_POLICY,
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
};

/** Serves the pages at `/`, `/docs` and `/traces`, and the files that they load. */
export async function servePages(app: FastifyInstance): Promise<void> {
  await app.register(fastifyStatic, { root: WEB, serve: false, cacheControl: false });
  const serve = (file: string, folder: string) =>
    app.get(PATHS[file] ?? `/${file}`, (_, reply) => reply.headers(HEADERS).sendFile(file, folder));
  for (const file of readdirSync(WEB)) if (['.html', '.css', '.js', '.svg'].includes(extname(file))) serve(file, WEB);
  for (const file of SWAGGER_FILES) serve(file, SWAGGER);
}

import { readdirSync } from 'node:fs';
import { basename, dirname, extname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import fastifyStatic from '@fastify/static';
import type { FastifyInstance } from 'fastify';

const WEB = join(import.meta.dirname, '..', '..', 'web');
/** Files of packages that the pages load, under the names at which they are served. */
const PACKAGED: Readonly<Record<string, string>> = {
  'swagger-ui.css': 'swagger-ui-dist/swagger-ui.css',
  'swagger-ui-bundle.js': 'swagger-ui-dist/swagger-ui-bundle.js',
  'marked.js': 'marked',
  'dompurify.js': 'dompurify',
};

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

const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.js': 'application/javascript; charset=utf-8',
  '.svg': 'image/svg+xml',
};

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
  const serve = (path: string, file: string) => {
    const headers = { ...HEADERS, 'content-type': TYPES[extname(path)] ?? TYPES['.html'] };
    app.get(path, (_, reply) => reply.headers(headers).sendFile(basename(file), dirname(file)));
  };
  for (const file of readdirSync(WEB)) {
    if (extname(file) in TYPES) serve(PATHS[file] ?? `/${file}`, join(WEB, file));
  }
  for (const [name, file] of Object.entries(PACKAGED)) serve(`/${name}`, fileURLToPath(import.meta.resolve(file)));
}

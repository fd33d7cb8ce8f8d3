import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startServer, type TestServer } from '../testing/test-server.ts';

let server: TestServer;
beforeAll(async () => {
  server = await startServer();
});
afterAll(() => server.close());

describe('pages', () => {
  test.each([
    ['/', 'text/html; charset=utf-8'],
    ['/docs', 'text/html; charset=utf-8'],
    ['/traces', 'text/html; charset=utf-8'],
    ['/app.js', 'application/javascript; charset=utf-8'],
    ['/style.css', 'text/css; charset=utf-8'],
    ['/swagger-ui-bundle.js', 'application/javascript; charset=utf-8'],
  ])('%s is served with its type and a strict policy', async (path, type) => {
    const { status, headers } = await fetch(server.url + path);
    expect([status, headers.get('content-type')]).toEqual([200, type]);
    expect(headers.get('content-security-policy')).toContain("default-src 'none'");
    expect(headers.get('x-content-type-options')).toBe('nosniff');
    expect(headers.get('referrer-policy')).toBe('no-referrer');
  });

  test('are revalidated on each use, and sent again only if they have changed', async () => {
    const first = await fetch(server.url);
    expect(first.headers.get('cache-control')).toBe('no-cache');
    const etag = first.headers.get('etag') ?? '';
    const again = await fetch(server.url, { headers: { 'if-none-match': etag }, cache: 'no-cache' });
    expect(again.status).toBe(304);
    expect(again.headers.get('content-security-policy')).toContain("default-src 'none'");
    expect(await again.text()).toBe('');
  });

  test.each(['/tsconfig.json', '/index.html', '/..%2fpackage.json'])('%s is not served', async (path) => {
    expect((await fetch(server.url + path)).status).toBe(404);
  });
});

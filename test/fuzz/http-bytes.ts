import fc from 'fast-check';
import { deepJson } from './forms.ts';
import { paths, posts, shaped } from './http-requests.ts';
import { mostly } from './rarely.ts';

/** Bytes that a client sends on one connection. */
export interface Rough {
  readonly bytes: Buffer;
  /** Position in [0, 1] at which the bytes are split into two writes. */
  readonly cut: number;
}

const ownPaths = [...Object.keys(paths).map((path) => path.replace('{id}', 'default')), '/', '/traces', '/traces.json'];
const method = mostly(
  fc.constantFrom('GET', 'HEAD', 'POST', 'POST', 'POST'),
  fc.constantFrom(
    ...['PUT', 'DELETE', 'OPTIONS', 'PATCH', 'TRACE', 'CONNECT', 'PROPFIND', 'QUERY', 'post', 'G E T', ''],
  ),
);
const path = mostly(
  fc.constantFrom(...ownPaths, ...posts.flatMap((post) => [post.path, post.path])),
  fc.oneof(
    fc.constantFrom(
      ...['*', '//', '/%zz', '/v1/models/%00', '/v1/models/..%2f', '/traces/1.json', '/traces/x', 'no-slash'],
    ),
    fc.constantFrom(
      ...['/v1/models/é', '/../../etc/passwd', 'http://other/v1/models', '/v1/completions/', '/?a[b]=c&%'],
    ),
    fc.string({ unit: 'binary' }).map((text) => `/${text}`),
    fc.nat(20_000).map((length) => `/v1/models/${'x'.repeat(length)}`),
  ),
  3,
);
const contentType = mostly(
  fc.constantFrom('application/json', 'application/json; charset=utf-8'),
  fc.constantFrom(
    ...['text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data; boundary=x', '', ';', 'a/b/c'],
    ...[
      'application/json; charset=utf-16',
      'application/json; charset',
      'APPLICATION/JSON',
      'application/json, text/plain',
    ],
  ),
  4,
);
const header = fc.oneof(
  fc.constantFrom(
    ...[
      'authorization: Bearer x',
      'authorization: Basic !',
      'x-request-id: é\u0000',
      'expect: 100-continue',
      'expect: x',
    ],
    ...['upgrade: websocket', 'connection: upgrade', 'accept: */*;q=x,,', 'accept-encoding: gzip', 'range: bytes=0-'],
    ...[
      'origin: http://x',
      'access-control-request-method: POST',
      'if-none-match: "x"',
      'traceparent: 00-0-0-0',
      'cookie: a',
    ],
    ...[
      'host: a',
      'host:',
      'no colon',
      ': empty',
      'sp ace: x',
      'transfer-encoding: gzip',
      'content-encoding: gzip',
      ' fold',
    ],
    ...[`x: ${'y'.repeat(17_000)}`, 'x-http-method-override: DELETE', 'forwarded: for=_', 'te: trailers', 'trailer: x'],
  ),
  fc.string({ unit: 'binary' }).map((text) => `x-any: ${text}`),
);
const prefix = fc.constantFrom('', '{"prompt":', '{"seed":12345678901234567,"prompt":', '{"messages":[', '{"tools":');
const spoilt = fc
  .tuple(
    shaped,
    fc.array(fc.tuple(fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), fc.nat(255)), { maxLength: 2 }),
  )
  .map(([{ body }, changes]) => {
    const bytes = Buffer.from(JSON.stringify(body));
    for (const [at, byte] of changes) bytes[Math.floor(at * bytes.length)] = byte;
    return bytes;
  });
const text = fc.oneof(
  fc.tuple(prefix, deepJson).map(([begin, deep]) => begin + deep),
  fc.tuple(prefix, fc.json()).map(([begin, json]) => begin + json),
  fc.constantFrom('', 'null', '[]', '"a"', '1e999', '{', '{"a":1}}', '\ufeff{}', 'a=b&c=d', '--x\r\n\r\n--x--', 'NaN'),
  fc.constantFrom(
    '{"__proto__":{"prompt":1}}',
    '{"constructor":{"prototype":{}},"prompt":"a"}',
    '{"prompt":"a","prompt":5}',
  ),
  fc.constantFrom(`{"prompt":"${'a'.repeat(1_100_000)}"}`, `{"prompt":[${'1,'.repeat(200_000)}1]}`),
);
const content = fc.oneof(
  { weight: 3, arbitrary: spoilt },
  { weight: 2, arbitrary: text.map((each) => Buffer.from(each)) },
  fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes)),
);
const chunked = (content: Buffer) =>
  Buffer.concat([Buffer.from(`${content.length.toString(16)}\r\n`), content, Buffer.from('\r\n0\r\n\r\n')]);
/** Generates the framing of a body, which is correct in most cases. */
type Framing = (content: Buffer) => [header: string, body: Buffer];
const framing: fc.Arbitrary<Framing> = mostly(
  fc.constantFrom<Framing>(
    (content) => [`content-length: ${content.length}`, content],
    (content) => ['transfer-encoding: chunked', chunked(content)],
  ),
  fc.constantFrom<Framing>(
    (content) => ['content-length: -1', content],
    (content) => ['content-length: 99999999999999999999', content],
    (content) => ['content-length: 1048577', content],
    (content) => [`content-length: ${content.length + 5}`, content],
    (content) => [`content-length: ${Math.max(0, content.length - 5)}`, content],
    (content) => [`content-length: ${content.length}\r\ntransfer-encoding: chunked`, chunked(content)],
    (content) => ['transfer-encoding: chunked', content],
    (content) => ['x: y', content],
  ),
);
const request = fc
  .record({
    method,
    path,
    version: mostly(fc.constant('HTTP/1.1'), fc.constantFrom('HTTP/1.0', 'HTTP/2.0', 'HTTP/9', '', 'HTTP/1.1 x'), 12),
    contentType,
    headers: fc.oneof({ weight: 2, arbitrary: fc.constant<string[]>([]) }, fc.array(header, { maxLength: 2 })),
    content,
    framing,
    end: mostly(fc.constant('\r\n'), fc.constantFrom('\n', '\r', '\r\n\r\n'), 20),
  })
  .map(({ method, path, version, contentType, headers, content, framing, end }) => {
    const [length, body] = framing(content);
    const bodyless = method === 'GET' || method === 'HEAD';
    const lines = [`${method} ${path} ${version}`, 'host: x', `content-type: ${contentType}`, 'connection: close'];
    const head = [...lines, ...headers, ...(bodyless ? [] : [length]), '', ''].join(end);
    return Buffer.concat([Buffer.from(head, 'latin1'), ...(bodyless ? [] : [body])]);
  });
const noRequest = fc.oneof(
  fc.uint8Array({ minLength: 1, maxLength: 100 }).map((bytes) => Buffer.from(bytes)),
  fc
    .constantFrom(
      'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
      '\x16\x03\x01\x02\x00\x01\x00',
      '\r\n\r\n',
      'GET /',
      'A'.repeat(80_000),
    )
    .map((each) => Buffer.from(each, 'latin1')),
);
/** Generates requests that follow no schema. Some are not HTTP. */
export const rough: fc.Arbitrary<Rough> = fc.record({
  bytes: fc.oneof(
    { weight: 20, arbitrary: request },
    { weight: 1, arbitrary: fc.tuple(request, request).map((both) => Buffer.concat(both)) },
    { weight: 1, arbitrary: noRequest },
  ),
  cut: fc.double({ min: 0, max: 1, noNaN: true }),
});

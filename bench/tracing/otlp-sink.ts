/** A collector that counts what it is sent and drops it, as a process of its own: `node bench/otlp-sink.ts`, forked. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';

/** What a sink has been sent since it was asked last. */
export interface SinkCounts {
  readonly posts: number;
  readonly bytes: number;
}

let counts = { posts: 0, bytes: 0 };

const server = createServer((request, response) => {
  if (request.method === 'GET') {
    response.end(JSON.stringify(counts));
    counts = { posts: 0, bytes: 0 };
    return;
  }
  request.on('data', (chunk: Buffer) => {
    counts.bytes += chunk.length;
  });
  request.on('end', () => {
    counts.posts++;
    response.end();
  });
});
server.listen(0, '127.0.0.1', () => process.send?.((server.address() as AddressInfo).port));
process.on('disconnect', () => process.exit(0));

/** An OTLP collector that counts the data it receives and discards it. It runs in a separate, forked process. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';

/** Counts since the last GET. */
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

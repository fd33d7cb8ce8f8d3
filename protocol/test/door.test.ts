import { once } from 'node:events';
import { connect } from 'node:net';
import { Server } from '@grpc/grpc-js';
import { expect, test } from 'vitest';
import { connectionLimit } from '../src/connection-limit.ts';
import { openDoor } from '../src/door.ts';

test('a server uses at most a third of the files that may be open', () => {
  const limits = (files: string) =>
    `Limit  Soft Limit  Hard Limit\nMax open files            ${files}  1048576  files\n`;
  expect(['1024', '1048576', 'unlimited'].map((files) => connectionLimit(limits(files)))).toEqual([341, 4096, 4096]);
  expect(connectionLimit('')).toBe(4096);
});

test('closes a connection on which no client begins to speak HTTP/2', async () => {
  const server = new Server();
  const door = await openDoor(server, { where: { host: '127.0.0.1', port: 0 }, tls: undefined, firstBytesMs: 100 });
  const socket = connect(Number(door.port), '127.0.0.1').resume();
  await once(socket, 'close');
  expect(socket.destroyed).toBe(true);
  await door.close();
  server.forceShutdown();
});

import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { text } from 'node:stream/consumers';
import { afterEach, expect, test } from 'vitest';
import type { HttpSettings } from '../../src/app.ts';
import { startServer, type TestServer } from '../testing/test-server.ts';

const HEAD = 'POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n';
let server: TestServer;
const sockets: Socket[] = [];

afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  await server.close();
});

/** Sends the start of a body that never ends. */
async function stall(bytes: number): Promise<Socket> {
  const socket = connect(server.port, '127.0.0.1');
  sockets.push(socket);
  socket.on('error', () => {});
  socket.write(`${HEAD}content-length: 1000000\r\n\r\n{"prompt":"${'a'.repeat(bytes)}`);
  await once(socket, 'connect');
  return socket;
}

async function start(settings: Partial<HttpSettings>): Promise<void> {
  server = await startServer(settings);
}

test('a body that stops halfway gets 408, and its connection is closed', async () => {
  await start({ arrivalMillis: 200 });
  const answer = await text(await stall(1000));
  expect(answer).toMatch(/^HTTP\/1.1 408 /);
  expect(answer).toContain('did not arrive in time');
});

test('arriving bodies share a limit, and complete bodies free their share', async () => {
  await start({ arrivingLimit: 250_000 });
  const stalled = await stall(200_000);
  const late = await stall(200_000);
  const [answer] = await once(late, 'data');
  expect(String(answer)).toMatch(/^HTTP\/1.1 429 /);
  expect((await server.complete({ prompt: 'a'.repeat(100_000) })).status).toBe(429);
  stalled.destroy();
  await expect.poll(async () => (await server.complete({ prompt: 'ab', max_tokens: 1 })).status).toBe(200);
  expect((await server.complete({ prompt: 'a'.repeat(100_000) })).status).not.toBe(429);
});

test('a server for this machine only rejects names that a web page could have chosen', async () => {
  await start({ localOnly: true, corsOrigins: 'http://app.example:3000' });
  const statusFor = async (host: string) => {
    const socket = connect(server.port, '127.0.0.1');
    socket.write(`GET /healthz HTTP/1.1\r\nhost: ${host}\r\nconnection: close\r\n\r\n`);
    return Number((await text(socket)).split(' ')[1]);
  };
  for (const host of ['localhost', 'LOCALHOST:8080', '127.0.0.1:1', '[::1]:80', 'app.example:3000']) {
    expect(await statusFor(host), host).toBe(200);
  }
  for (const host of ['evil.example', 'localhost.evil.example', '127.0.0.1.evil.example:80', 'app.example']) {
    expect(await statusFor(host), host).toBe(400);
  }
});

test('answers that end while the server drains say that the connection closes', async () => {
  await start({});
  const socket = connect(server.port, '127.0.0.1');
  const body = JSON.stringify({ prompt: 'ab', max_tokens: 1 });
  socket.write(`${HEAD}content-length: ${body.length}\r\n\r\n${body.slice(0, 3)}`);
  await once(socket, 'connect');
  await new Promise((resolve) => setTimeout(resolve, 100));
  const closed = server.shutdown();
  await new Promise((resolve) => setTimeout(resolve, 50));
  socket.write(body.slice(3));
  expect(await text(socket)).toMatch(/^connection: close\r$/im);
  await closed;
});

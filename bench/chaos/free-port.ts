import { createServer } from 'node:net';

/**
 * Range of ports below the range for outgoing connections, which could otherwise take a port while its service is down.
 */
const PORTS = { from: 20_000, to: 30_000 };

/** Finds a port on which nothing listens. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = PORTS.from + Math.floor(Math.random() * (PORTS.to - PORTS.from));
    const server = createServer();
    const free = await new Promise<boolean>((resolve) => {
      server.once('error', () => resolve(false)).listen(port, '127.0.0.1', () => resolve(true));
    });
    if (!free) continue;
    await new Promise((resolve) => server.close(resolve));
    return port;
  }
}

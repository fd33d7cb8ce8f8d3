import { connect, type TLSSocket } from 'node:tls';
import type { FleetFault } from './fault.ts';

const CLIENTS = 20;
const LENGTH = 4_000_000;
/** Number of bytes sent of each body. */
const SENT = 500_000;

/** Bodies that stop before their end. */
export const stalledBodies: FleetFault<TLSSocket[]> = {
  name: 'request bodies that stop halfway',
  lasts: [1000, 8000],
  start({ port }) {
    return Array.from({ length: CLIENTS }, () => {
      const socket = connect({ port, host: '127.0.0.1' });
      socket.on('error', () => {});
      const head = `POST /v1/completions HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\nContent-Length: ${LENGTH}\r\n\r\n`;
      socket.write(`${head}{"prompt":"${'a'.repeat(SENT)}`);
      return socket;
    });
  },
  stop(_, sockets) {
    for (const socket of sockets) socket.destroy();
  },
};

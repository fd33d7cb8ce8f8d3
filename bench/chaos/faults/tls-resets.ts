import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Tls } from '@ptp/protocol/credentials';
import type { Endpoint } from '../fleet.ts';
import { connectTls } from '../handshake.ts';
import type { FleetFault } from './fault.ts';

const PAUSE_MS = 20;
/** Maximum time in milliseconds until a server, even a restarted one, completes a handshake after the fault. */
const GRACE_MS = 60_000;

interface Storm {
  readonly over: AbortController;
  readonly endpoints: readonly Endpoint[];
  /** Ports of the servers that have completed a handshake. */
  readonly completed: Set<number>;
}

/** Resets connections as soon as their handshake has ended, as the health checks of load balancers do. */
export const tlsResets: FleetFault<Storm> = {
  name: 'connections reset after their TLS handshake',
  lasts: [1000, 4000],
  start({ endpoints, tls }) {
    const storm = { over: new AbortController(), endpoints, completed: new Set<number>() };
    void resetAll(storm, tls);
    return storm;
  },
  async stop({ broken, tls }, { over, endpoints, completed }) {
    over.abort();
    const until = performance.now() + GRACE_MS;
    for (const { member, port } of endpoints) {
      for (; member.running && !completed.has(port) && performance.now() < until; await sleep(100)) {
        handshakeThenReset(port, tls, 'session', completed);
      }
      if (member.running && !completed.has(port)) broken.push(`no TLS handshake at a port of the ${member.kind}`);
    }
  },
};

async function resetAll({ over, endpoints, completed }: Storm, tls: Tls): Promise<void> {
  for (let round = 0; !over.signal.aborted; round++) {
    for (const { port } of endpoints) {
      handshakeThenReset(port, tls, round % 2 === 0 ? 'secureConnect' : 'session', completed);
      await sleep(PAUSE_MS);
    }
  }
}

/**
 * @param moment `secureConnect`: before the server has checked the client's certificate. `session`: afterwards, when the
 *   server has sent a session ticket
 */
function handshakeThenReset(port: number, tls: Tls, moment: 'secureConnect' | 'session', completed: Set<number>): void {
  const raw = connect(port, '127.0.0.1').on('error', () => {});
  const socket = connectTls(port, { ...tls.identity, socket: raw });
  socket.once(moment, () => raw.resetAndDestroy());
  socket.once('session', () => completed.add(port));
}

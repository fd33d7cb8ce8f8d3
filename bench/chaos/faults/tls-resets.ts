import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect as connectTls } from 'node:tls';
import type { FleetFault } from './fault.ts';

const PAUSE_MS = 20;

/** Resets connections as soon as their handshake has ended, as the health checks of load balancers do. */
export const tlsResets: FleetFault<AbortController> = {
  name: 'connections reset after their TLS handshake',
  lasts: [1000, 4000],
  start({ doors }) {
    const over = new AbortController();
    const resetAll = async () => {
      for (let i = 0; !over.signal.aborted; i++) {
        handshakeThenReset(doors[i % doors.length] as number);
        await sleep(PAUSE_MS);
      }
    };
    void resetAll();
    return over;
  },
  stop: (_, over) => over.abort(),
};

function handshakeThenReset(port: number): void {
  const raw = connect(port, '127.0.0.1');
  const reset = () => raw.resetAndDestroy();
  const socket = connectTls({ socket: raw, host: '127.0.0.1', ALPNProtocols: ['h2'] }, reset);
  for (const each of [raw, socket]) each.on('error', () => {});
}

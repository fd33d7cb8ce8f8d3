import { Agent, request } from 'node:https';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Random } from '../../random.ts';
import type { FleetFault } from './fault.ts';

/** Number of requests per second. */
const RATE = 50;
/** Longest time in milliseconds until a client hangs up. */
const PATIENCE_MS = 100;

/** Clients that hang up at once, or after the first bytes of their answer. */
export const hangUps: FleetFault<AbortController> = {
  name: 'storm of clients that hang up',
  lasts: [1000, 4000],
  start({ url }, random) {
    const over = new AbortController();
    const agent = new Agent({ keepAlive: false });
    const storm = async () => {
      for (; !over.signal.aborted; await sleep(1000 / RATE)) askAndHangUp(url, agent, random);
      agent.destroy();
    };
    void storm();
    return over;
  },
  stop: (_, over) => over.abort(),
};

function askAndHangUp(url: string, agent: Agent, random: Random): void {
  const body = JSON.stringify({ prompt: 'def read(', max_tokens: 90, stream: true, ignore_eos: true });
  const headers = { 'content-type': 'application/json' };
  const call = request(`${url}/v1/completions`, { method: 'POST', agent, headers }, (response) => {
    response.once('data', () => call.destroy());
    response.on('error', () => {});
  });
  call.on('error', () => {});
  call.end(body);
  setTimeout(() => call.destroy(), random.between(0, PATIENCE_MS));
}

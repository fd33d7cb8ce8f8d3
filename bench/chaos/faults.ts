import { setTimeout as sleep } from 'node:timers/promises';
import type { Random } from '../random.ts';
import type { Fleet, Node } from './fleet.ts';

/** A fault, which resolves when all is as it was. */
type Fault = (node: Node, random: Random) => Promise<void>;

async function down(node: Node, signal: NodeJS.Signals, millis: number): Promise<void> {
  await node.member.end(signal);
  await sleep(millis);
  node.member.start();
}

/** What may befall a service. */
const FAULTS: Readonly<Record<string, Fault>> = {
  'killed, and started again': (node, random) => down(node, 'SIGKILL', random.between(0, 1500)),
  'stopped in order, and started again': (node, random) => down(node, 'SIGTERM', random.between(0, 500)),
  async 'hung for a while'(node, random) {
    node.member.signal('SIGSTOP');
    await sleep(random.between(200, 9000));
    node.member.signal('SIGCONT');
  },
  async 'connections cut'(node) {
    node.network.cut();
  },
  async 'network slow for a while'(node, random) {
    node.network.delayMs = random.between(5, 300);
    await sleep(random.between(500, 3000));
    node.network.delayMs = 0;
  },
  async 'network silent for a while'(node, random) {
    node.network.silent = true;
    await sleep(random.between(200, 8000));
    node.network.silent = false;
    // what was swallowed cannot come any more
    node.network.cut();
  },
  async 'bytes changed on the way'(node, random) {
    node.network.corrupt = 1 + Math.floor(random.between(0, 3));
    await sleep(500);
    node.network.corrupt = 0;
  },
};

/** Injects faults until the signal is aborted, each service at most one at a time. @param onFault hears of each */
export async function injectFaults(
  fleet: Fleet,
  random: Random,
  pauseMs: number,
  onFault: (kind: string, fault: string) => void,
  signal: AbortSignal,
): Promise<void> {
  const busy = new Set<Node>();
  const running = new Set<Promise<void>>();
  while (!signal.aborted) {
    await sleep(random.between(0, 2 * pauseMs), undefined, { signal }).catch(() => {});
    const free = [...fleet.verifiers, ...fleet.drafters].filter((node) => !busy.has(node));
    if (signal.aborted || free.length === 0) continue;
    const node = random.of(free);
    const name = random.of(Object.keys(FAULTS));
    onFault(node.member.kind, name);
    busy.add(node);
    const done = (FAULTS[name] as Fault)(node, random).finally(() => {
      busy.delete(node);
      running.delete(done);
    });
    running.add(done);
  }
  await Promise.all(running);
}

import { setTimeout as sleep } from 'node:timers/promises';
import type { Random } from '../random.ts';
import type { Fleet, Node } from './fleet.ts';

/** Injects a fault. The promise resolves when the fault has been undone. */
type Fault = (node: Node, random: Random) => Promise<void>;

async function restart(node: Node, signal: NodeJS.Signals, downMs: number): Promise<void> {
  await node.member.end(signal);
  await sleep(downMs);
  node.member.start();
}

const FAULTS: Readonly<Record<string, Fault>> = {
  'killed, and started again': (node, random) => restart(node, 'SIGKILL', random.between(0, 1500)),
  'stopped in order, and started again': (node, random) => restart(node, 'SIGTERM', random.between(0, 500)),
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
    // The dropped bytes never arrive, so the open connections are unusable.
    node.network.cut();
  },
  async 'bytes changed on the way'(node, random) {
    node.network.corrupt = 1 + Math.floor(random.between(0, 3));
    await sleep(500);
    node.network.corrupt = 0;
  },
};

/**
 * Injects faults until the signal is aborted. A service has at most one fault at a time.
 *
 * @param onFault function that receives the kind of service and the name of the fault
 */
export async function injectFaults(
  fleet: Fleet,
  random: Random,
  pauseMs: number,
  onFault: (fault: string) => void,
  signal: AbortSignal,
): Promise<void> {
  const running = new Map<Node, Promise<void>>();
  while (!signal.aborted) {
    await sleep(random.between(0, 2 * pauseMs), undefined, { signal }).catch(() => {});
    const free = [...fleet.verifiers, ...fleet.drafters].filter((node) => !running.has(node));
    if (signal.aborted || free.length === 0) continue;
    const node = random.of(free);
    const name = random.of(Object.keys(FAULTS));
    onFault(`${node.member.kind} ${name}`);
    running.set(
      node,
      (FAULTS[name] as Fault)(node, random).finally(() => running.delete(node)),
    );
  }
  await Promise.all(running.values());
}

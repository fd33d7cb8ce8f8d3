import { setTimeout as sleep } from 'node:timers/promises';
import type { Random } from '../random.ts';
import type { Fleet, Member, Node } from './fleet.ts';

/** Injects a fault. The promise resolves when the fault has been undone. */
type Fault = (node: Node, random: Random) => Promise<void>;

async function restart(member: Member, signal: NodeJS.Signals, downMs: number): Promise<void> {
  await member.end(signal);
  await sleep(downMs);
  member.start();
}

async function hang(member: Member, ms: number): Promise<void> {
  member.signal('SIGSTOP');
  await sleep(ms);
  member.signal('SIGCONT');
}

const FAULTS: Readonly<Record<string, Fault>> = {
  'killed, and started again': ({ member }, random) => restart(member, 'SIGKILL', random.between(0, 1500)),
  'stopped in order, and started again': ({ member }, random) => restart(member, 'SIGTERM', random.between(0, 500)),
  'hung for a while': ({ member }, random) => hang(member, random.between(200, 9000)),
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

/** Faults of services whose engine is another process. The service ends when its engine has died. */
const ENGINE_FAULTS: Readonly<Record<string, (engine: Member, random: Random) => Promise<void>>> = {
  'engine killed, and started again': (engine, random) => restart(engine, 'SIGKILL', random.between(0, 1500)),
  'engine hung for a while': (engine, random) => hang(engine, random.between(200, 9000)),
};

/** Names of all faults. */
export const FAULT_NAMES: readonly string[] = [...Object.keys(FAULTS), ...Object.keys(ENGINE_FAULTS)];

/** Returns the faults that a node can have, whose names contain `only`. */
function faultsOf({ engine }: Node, only: string): [string, Fault][] {
  const all = Object.entries(FAULTS);
  if (engine) {
    for (const [name, fault] of Object.entries(ENGINE_FAULTS)) all.push([name, (_, random) => fault(engine, random)]);
  }
  return all.filter(([name]) => name.includes(only));
}

export interface FaultOptions {
  /** Mean time between faults in milliseconds. */
  readonly pause: number;
  /** Text that the names of all injected faults contain. */
  readonly only: string;
}

/**
 * Injects faults until the signal is aborted. A service has at most one fault at a time.
 *
 * @param onFault function that receives the kind of service and the name of the fault
 */
export async function injectFaults(
  fleet: Fleet,
  random: Random,
  { pause, only }: FaultOptions,
  onFault: (fault: string) => void,
  signal: AbortSignal,
): Promise<void> {
  const running = new Map<Node, Promise<void>>();
  while (!signal.aborted) {
    await sleep(random.between(0, 2 * pause), undefined, { signal }).catch(() => {});
    const nodes = [...fleet.verifiers, ...fleet.drafters];
    const free = nodes.filter((node) => !running.has(node) && faultsOf(node, only).length > 0);
    if (signal.aborted || free.length === 0) continue;
    const node = random.of(free);
    const [name, fault] = random.of(faultsOf(node, only));
    onFault(`${node.member.kind} ${name}`);
    running.set(
      node,
      fault(node, random).finally(() => running.delete(node)),
    );
  }
  await Promise.all(running.values());
}

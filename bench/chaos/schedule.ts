import { setTimeout as sleep } from 'node:timers/promises';
import type { Random } from '../random.ts';
import type { Fault } from './faults/fault.ts';
import { engineFaults, fleetFaults, nameOf, nodeFaults } from './faults/index.ts';
import type { Fleet } from './fleet.ts';

/** A fault and the part of the fleet that can have it. */
interface Candidate {
  readonly name: string;
  /** Object that has at most one fault at a time: a service with its engine, or each fault of the whole fleet. */
  readonly place: object;
  inject(random: Random): Promise<void>;
}

export interface FaultOptions {
  /** Mean time between faults in milliseconds. */
  readonly pause: number;
  /** Text that the names of all injected faults contain. */
  readonly only: string;
}

/**
 * Injects faults until the signal is aborted.
 *
 * @param onFault called with the name of each injected fault, which includes the kind of service for faults of services
 */
export async function injectFaults(
  fleet: Fleet,
  random: Random,
  { pause, only }: FaultOptions,
  onFault: (fault: string) => void,
  signal: AbortSignal,
): Promise<void> {
  const running = new Map<object, Promise<void>>();
  while (!signal.aborted) {
    await sleep(random.between(0, 2 * pause), undefined, { signal }).catch(() => {});
    const free = candidates(fleet).filter(({ name, place }) => name.includes(only) && !running.has(place));
    if (signal.aborted || free.length === 0) continue;
    // Places are equally likely, so that a service has no more faults than another one.
    const place = random.of([...new Set(free.map((each) => each.place))]);
    const { name, inject } = random.of(free.filter((each) => each.place === place));
    onFault(name);
    running.set(
      place,
      inject(random)
        .catch((error) => void fleet.broken.push(`${name}: ${(error as Error).message}`))
        .finally(() => running.delete(place)),
    );
  }
  await Promise.all(running.values());
}

function candidates(fleet: Fleet): Candidate[] {
  const nodes = [...fleet.verifiers, ...fleet.drafters];
  return [
    ...nodes.flatMap((node) => {
      const { kind } = node.member;
      return [
        ...nodeFaults.map((fault) => candidate(fault, node, node, kind)),
        ...engineFaults.flatMap((fault) => (node.engine ? [candidate(fault, node.engine, node, kind)] : [])),
      ];
    }),
    ...fleetFaults.map((fault) => candidate(fault, fleet, fault)),
  ];
}

function candidate<Part>(fault: Fault<Part>, part: Part, place: object, kind?: string): Candidate {
  return {
    name: nameOf(fault, kind),
    place,
    async inject(random) {
      const state = await fault.start(part, random);
      await sleep(random.between(...fault.lasts));
      await fault.stop(part, state);
    },
  };
}

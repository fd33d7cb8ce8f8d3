import { gatewayHalfRenewed, halfRenewed } from './certificates.ts';
import type { EngineFault, FleetFault, NodeFault } from './fault.ts';
import { engineHung, hung } from './hang.ts';
import { hangUps } from './hang-ups.ts';
import { corrupt, cut, silent, slow } from './network.ts';
import { added, removed } from './replicas.ts';
import { engineKilled, killed, stopped } from './restart.ts';
import { hasHaproxy, sharedConnections } from './shared-connections.ts';
import { stalledBodies } from './stalled-bodies.ts';
import { tlsResets } from './tls-resets.ts';

// The types of states differ, and each state only goes from a fault's `start` to its own `stop`.
// biome-ignore-start lint/suspicious/noExplicitAny: as above
export const nodeFaults: readonly NodeFault<any>[] = [
  killed,
  stopped,
  hung,
  cut,
  slow,
  silent,
  corrupt,
  halfRenewed,
  removed,
];
export const engineFaults: readonly EngineFault<any>[] = [engineKilled, engineHung];
export const fleetFaults: readonly FleetFault<any>[] = [
  gatewayHalfRenewed,
  added,
  tlsResets,
  hangUps,
  stalledBodies,
  ...(hasHaproxy ? [sharedConnections] : []),
];
// biome-ignore-end lint/suspicious/noExplicitAny: as above

/** Names of faults that need a program which is not installed. */
export const skipped: readonly string[] = hasHaproxy ? [] : [`${sharedConnections.name} (haproxy is not installed)`];

/** Returns the name of a fault in the result and in `--only`. @param kind kind of service, for faults of services */
export function nameOf({ name }: { readonly name: string }, kind?: string): string {
  return kind ? `${kind} ${name}` : name;
}

export const FAULT_NAMES: readonly string[] = [
  ...['verifier', 'drafter'].flatMap((kind) => [...nodeFaults, ...engineFaults].map((fault) => nameOf(fault, kind))),
  ...fleetFaults.map((fault) => nameOf(fault)),
];

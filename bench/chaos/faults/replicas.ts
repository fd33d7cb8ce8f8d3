import type { Replica } from '../fleet.ts';
import type { FleetFault, NodeFault } from './fault.ts';

/** Streams on the node continue. The last address of a name stays in use. */
export const removed: NodeFault = {
  name: 'removed from DNS for a while',
  lasts: [3000, 10_000],
  start: ({ registration }) => registration.remove(),
  stop: ({ registration }) => registration.add(),
};

/** Another verifier serves for a while. */
export const added: FleetFault<Replica> = {
  name: 'replica added behind DNS, and removed again',
  lasts: [6000, 12_000],
  start: (fleet) => fleet.addVerifier(),
  stop: (fleet, replica) => fleet.removeVerifier(replica),
};

import { setImmediate } from 'node:timers/promises';

let last = Promise.resolve();

/**
 * Resolves in a turn of the event loop in which it resolves for no other caller. Long pieces of work of different
 * requests would otherwise be done in the same turn, which would hold the event loop for the sum of their durations.
 */
export function ownTurn(): Promise<void> {
  last = last.then(() => setImmediate());
  return last;
}

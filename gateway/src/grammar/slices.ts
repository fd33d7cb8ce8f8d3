import { ownTurn } from '@ptp/service-kit/own-turn';

/** Maximum duration of a slice, in milliseconds. Other streams wait for the end of the slice. */
const SLICE_MILLIS = 4;
/** Minimum duration of the new work of a slice, in milliseconds. Finding earlier results again takes time as well. */
const WORK_MILLIS = 2;

/** Interrupts work at a checkpoint. Whoever catches it must leave all results stored. */
export class Pause extends Error {}

const pause = new Pause('work continues in the next slice');
let [deadline, isFirst] = [Number.POSITIVE_INFINITY, false];

/**
 * Ends the current slice if it has lasted long enough. Call it only after storing a new result, so that each slice
 * makes progress.
 *
 * @throws Pause
 */
export function checkpoint(): void {
  if (deadline === Number.POSITIVE_INFINITY) return;
  const now = performance.now();
  if (isFirst) deadline = Math.max(deadline, now + WORK_MILLIS);
  isFirst = false;
  if (now > deadline) throw pause;
}

/**
 * Runs work that has checkpoints, in slices, between which the event loop runs. Each slice starts the work again, which
 * must find the results that earlier slices have stored. The slices of different calls take turns.
 *
 * @param millis maximum duration of a slice
 */
export async function inSlices<T>(work: () => T, millis = SLICE_MILLIS): Promise<T> {
  for (;;) {
    [deadline, isFirst] = [performance.now() + millis, millis > 0];
    try {
      return work();
    } catch (error) {
      if (!(error instanceof Pause)) throw error;
    } finally {
      deadline = Number.POSITIVE_INFINITY;
    }
    await ownTurn();
  }
}

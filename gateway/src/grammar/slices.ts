import { ownTurn } from '@ptp/service-kit/own-turn';

/** Maximum duration of a slice, in milliseconds. Other streams wait for the end of the slice. */
const SLICE_MILLIS = 4;
/** Minimum duration of the new work of a slice, in milliseconds. Finding earlier results again takes time as well. */
const WORK_MILLIS = 2;

/** Interrupts work at a checkpoint. Code that catches it must keep all stored results. */
export class Pause extends Error {}

const pause = new Pause('work continues in the next slice');
/** The slice that is running. */
let slice: { deadline: number; isBeforeWork: boolean } | undefined;

/**
 * Ends the current slice if it has lasted long enough. Call it only after storing a new result, so that each slice
 * makes progress.
 *
 * @throws Pause
 */
export function checkpoint(): void {
  if (!slice) return;
  const now = performance.now();
  if (slice.isBeforeWork) slice.deadline = Math.max(slice.deadline, now + WORK_MILLIS);
  slice.isBeforeWork = false;
  if (now > slice.deadline) throw pause;
}

/**
 * Runs work that has checkpoints, in slices, between which the event loop runs. Each slice starts the work again, which
 * must find the results that earlier slices have stored. The slices of different calls take turns.
 *
 * @param millis maximum duration of a slice
 */
export async function inSlices<T>(work: () => T, millis = SLICE_MILLIS): Promise<T> {
  for (;;) {
    slice = { deadline: performance.now() + millis, isBeforeWork: millis > 0 };
    try {
      return work();
    } catch (error) {
      if (!(error instanceof Pause)) throw error;
    } finally {
      slice = undefined;
    }
    await ownTurn();
  }
}

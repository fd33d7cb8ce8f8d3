import type { StepStats } from './types.ts';

/** Returns a step's figures with the names that stream chunks, /traces and Perfetto slices share. */
export function stepFigures(stats: StepStats) {
  const { step, mode, reason, source, offered, budget, drafted, accepted, aheadMicros } = stats;
  return { step, mode, reason, source, offered, budget, drafted, accepted, ahead_us: aheadMicros };
}

import type { StepStats } from './types.ts';

/** A step's figures under the names that a stream's chunks, /traces and Perfetto's slices share. */
export function stepFigures(stats: StepStats) {
  const { step, mode, reason, source, offered, budget, drafted, accepted, aheadMicros } = stats;
  return { step, mode, reason, source, offered, budget, drafted, accepted, ahead_us: aheadMicros };
}

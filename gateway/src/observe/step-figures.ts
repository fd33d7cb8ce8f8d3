import type { StepStats } from '../decode/types.ts';

/** What a step was, as traces tell it wherever they do: in a stream's chunks, in `/traces` and in Perfetto's slices. */
export function stepFigures(stats: StepStats) {
  const { step, mode, reason, source, offered, budget, drafted, accepted, aheadMicros } = stats;
  return { step, mode, reason, source, offered, budget, drafted, accepted, ahead_us: aheadMicros };
}

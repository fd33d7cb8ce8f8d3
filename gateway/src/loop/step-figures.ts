import type { StepFacts } from './generation.ts';

/** What a step was, as traces tell it wherever they do: in a stream's chunks, in `/traces` and in Perfetto's slices. */
export function stepFigures({ step, mode, reason, source, offered, budget, drafted, accepted }: StepFacts) {
  return { step, mode, reason, source, offered, budget, drafted, accepted };
}

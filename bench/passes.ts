import type { SamplingParams } from '@ptp/protocol/sampling-params';
import type { GenerationRequest, Generator, StepStats } from '../gateway/src/decode/types.ts';

/** Sampling of all measurements: the setting of the paper's Spec-Bench figures. */
export const REFERENCE: SamplingParams = { temperature: 0.7, topK: 50, topP: 0.9 };

/** One request, decoded to its end. Times are `performance.now()` values. */
export interface Pass {
  readonly tokens: readonly number[];
  readonly steps: readonly StepStats[];
  /** Tokens of the first step. */
  readonly firstTokens: number;
  /** Tokens of the prompt that the verifier's prefix cache held. */
  readonly reusedTokens: number;
  readonly began: number;
  /** End of the first step and of the last one. */
  readonly first: number;
  readonly ended: number;
}

export async function decodeRequest(generator: Generator, request: GenerationRequest): Promise<Pass> {
  const tokens: number[] = [];
  const steps: StepStats[] = [];
  const began = performance.now();
  let [first, firstTokens, reusedTokens] = [began, 0, 0];
  for await (const step of generator.generate(request, new AbortController().signal)) {
    if (steps.length === 0) [first, firstTokens] = [performance.now(), step.tokens.length];
    steps.push(step.stats);
    tokens.push(...step.tokens);
    reusedTokens += step.reusedTokens ?? 0;
  }
  return { tokens, steps, firstTokens, reusedTokens, began, first, ended: performance.now() };
}

/** Microseconds from the first step's start to the last step's end; prefill and the first draft come before that. */
export const decodeMicros = ({ steps, first, ended }: Pass): number =>
  (ended - first) * 1000 + (steps[0]?.stepMicros ?? 0);

/** One measurement without the drafter and one with it, made in direct succession so that both meet the same load on the machine. */
export interface Pair<Measured> {
  readonly plain: Measured;
  readonly drafted: Measured;
}

/** Measures without the drafter and with it; which comes first alternates with `turn`. */
export async function bothWays<Measured>(
  turn: number,
  measure: (drafting: boolean) => Promise<Measured>,
): Promise<Pair<Measured>> {
  const plainFirst = turn % 2 === 0;
  const one = await measure(!plainFirst);
  const two = await measure(plainFirst);
  return plainFirst ? { plain: one, drafted: two } : { plain: two, drafted: one };
}

import type { SamplingParams } from '@ptp/protocol/sampling-params';
import type { GenerationRequest, Generator, StepStats } from '../gateway/src/decode/types.ts';

/** Sampling parameters of all measurements, as in the paper's Spec-Bench figures. */
export const REFERENCE: SamplingParams = { temperature: 0.7, topK: 50, topP: 0.9 };

/** Result of decoding one request. Times are `performance.now()` values. */
export interface Pass {
  readonly tokens: readonly number[];
  readonly steps: readonly StepStats[];
  /** Number of tokens of the first step. */
  readonly firstTokens: number;
  /** Number of prompt tokens found in the verifier's prefix cache. */
  readonly reusedTokens: number;
  readonly began: number;
  /** Times at which the first step and the last step ended. */
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

/**
 * Returns the time in microseconds from the start of the first step to the end of the last step, without prefill and
 * the first draft.
 */
export const decodeMicros = ({ steps, first, ended }: Pass): number =>
  (ended - first) * 1000 + (steps[0]?.stepMicros ?? 0);

/** Measurements without and with the drafter. There is one of each per round. */
export interface Measured<Measurement> {
  readonly plain: readonly Measurement[];
  readonly drafted: readonly Measurement[];
}

/**
 * Measures without and with the drafter in direct succession, so that the load on the machine is the same. The order
 * alternates.
 */
export async function bothWays<Measurement>(
  turns: number,
  measure: (drafting: boolean, turn: number) => Promise<Measurement>,
): Promise<Measured<Measurement>> {
  const measured = { plain: [] as Measurement[], drafted: [] as Measurement[] };
  for (let turn = 0; turn < turns; turn++) {
    for (const drafting of turn % 2 === 0 ? [false, true] : [true, false]) {
      measured[drafting ? 'drafted' : 'plain'].push(await measure(drafting, turn));
    }
    showProgress(turn + 1, turns);
  }
  return measured;
}

/** Shows progress on one line of stderr. */
export function showProgress(done: number, all: number): void {
  process.stderr.write(`\r${done}/${all}${done === all ? '\n' : ''}`);
}

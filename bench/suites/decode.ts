import type { SamplingParams } from '@ptp/protocol/sampling-params';
import type { GenerationRequest, Generator, StepFacts } from '../../gateway/src/decode/types.ts';
import { bothWays, type Pair } from '../passes.ts';
import type { Prompt } from '../prompts.ts';
import { countBy, mean, median, round, sum } from '../statistics.ts';

/** The setting of the paper's Spec-Bench figures. */
export const REFERENCE: SamplingParams = { temperature: 0.7, topK: 50, topP: 0.9 };

export interface Pass {
  readonly tokens: number;
  /** From the first step's start to the last step's end, what lies between steps included. */
  readonly micros: number;
  readonly steps: StepStats[];
}

type Measured = Pair<Pass> & { readonly split: string };

/** Prompts before the measured ones, for compilers and controller to settle; a server does that in its first minute. */
const WARM_UP = 4;

/**
 * Decodes every prompt with the drafter off and on in turn, one stream at a time. Prompt reading and the first draft, beside it, are not
 * in the figures. `mode_by_step` has a letter for every step from the first one on: o(verlap), s(equential), p(lain).
 */
export async function decode(
  generator: Generator,
  prompts: readonly Prompt[],
  maxTokens: number,
): Promise<Record<string, unknown>> {
  const pairs: Measured[] = [];
  const modes: string[] = [];
  for (const [i, { tokens, split }] of [...prompts.slice(-WARM_UP), ...prompts].entries()) {
    const request = { prompt: tokens, sampling: REFERENCE, seed: BigInt(i), maxTokens };
    const measured = await bothWays(i, (drafting) => pass(generator, { ...request, drafting }));
    modes.push(...measured.drafted.steps.map(({ mode }) => mode));
    // a text that ends at once has no time to measure
    if (i >= WARM_UP && measured.plain.tokens >= 16) pairs.push({ ...measured, split });
    process.stderr.write(`\r${i + 1}/${WARM_UP + prompts.length} prompts`);
  }
  process.stderr.write('\n');
  return { ...report(pairs), mode_by_step: modes.map((mode) => mode[0]).join('') };
}

/** One request alone. */
export async function pass(generator: Generator, request: GenerationRequest): Promise<Pass> {
  const steps: StepStats[] = [];
  let tokens = 0;
  let began = 0;
  for await (const step of generator.generate(request, new AbortController().signal)) {
    if (steps.length === 0) began = performance.now() - step.stats.stepMicros / 1000;
    steps.push(step.stats);
    tokens += step.tokens.length;
  }
  return { tokens, steps, micros: (performance.now() - began) * 1000 };
}

function report(pairs: Measured[]): Record<string, unknown> {
  const drafted = pairs.flatMap((pair) => pair.drafted.steps);
  const plain = pairs.flatMap((pair) => pair.plain.steps);
  // steps whose draft and verify were in flight together; a redraft comes before its verify
  const overlapped = drafted.filter((s) => s.draftMicros > 0 && s.redraftMicros === 0);
  const ahead = drafted.map((s) => s.aheadMicros).filter((micros) => micros > 0);
  const perToken = ({ micros, tokens }: Pass) => micros / tokens;
  const perCall = (chosen: typeof pairs) =>
    sum(chosen.map((p) => p.drafted.tokens)) / sum(chosen.map((p) => p.drafted.steps.length));
  const longest = Math.max(...drafted.map((s) => s.drafted));
  return {
    tokens_per_call: round(perCall(pairs)),
    tokens_per_call_by_split: Object.fromEntries(
      [...new Set(pairs.map((p) => p.split))].map((split) => [
        split,
        round(perCall(pairs.filter((p) => p.split === split))),
      ]),
    ),
    speedup_vs_ar: round(median(pairs.map((p) => perToken(p.plain) / perToken(p.drafted)))),
    speedup_total: round(
      sum(pairs.map((p) => p.plain.micros)) /
        sum(pairs.map((p) => p.plain.tokens)) /
        (sum(pairs.map((p) => p.drafted.micros)) / sum(pairs.map((p) => p.drafted.tokens))),
    ),
    micros_per_token: {
      plain: Math.round(sum(pairs.map((p) => p.plain.micros)) / sum(pairs.map((p) => p.plain.tokens))),
      drafted: Math.round(sum(pairs.map((p) => p.drafted.micros)) / sum(pairs.map((p) => p.drafted.tokens))),
    },
    overlap_ratio: round(median(overlapped.map((s) => s.stepMicros / Math.max(s.draftMicros, s.verifyMicros)))),
    overlap_ratio_to_sum: round(median(overlapped.map((s) => s.stepMicros / (s.draftMicros + s.verifyMicros)))),
    overhead_us_p50: median(overlapped.map((s) => s.stepMicros - Math.max(s.draftRunMicros, s.verifyRunMicros))),
    overhead_us_p50_plain: median(plain.map((s) => s.stepMicros - s.verifyRunMicros)),
    step_us_p50: { plain: median(plain.map((s) => s.stepMicros)), drafted: median(drafted.map((s) => s.stepMicros)) },
    verify_run_us_p50: {
      plain: median(plain.map((s) => s.verifyRunMicros)),
      block: median(drafted.filter((s) => s.drafted > 0).map((s) => s.verifyRunMicros)),
    },
    draft_run_us_p50: median(overlapped.map((s) => s.draftRunMicros)),
    steps: {
      all: drafted.length,
      redrafted: drafted.filter((s) => s.redraftMicros > 0).length,
      without_block: drafted.filter((s) => s.drafted === 0).length,
    },
    by_source: Object.fromEntries(
      [...new Set(drafted.map((s) => s.source))].map((source) => {
        const steps = drafted.filter((s) => s.source === source);
        return [source, { steps: steps.length, tokens_per_call: round(1 + mean(steps.map((s) => s.accepted))) }];
      }),
    ),
    modes: countBy(drafted.map((s) => `${s.mode}, ${s.reason}`)),
    sent_ahead: { share: round(ahead.length / drafted.length), us_p50: median(ahead) },
    block_length_mean: round(mean(drafted.map((s) => s.drafted))),
    acceptance_by_position: Array.from({ length: longest }, (_, k) => {
      const reached = drafted.filter((s) => s.drafted > k);
      return round(reached.filter((s) => s.accepted > k).length / reached.length);
    }),
    tokens: sum(pairs.map((p) => p.drafted.tokens)),
    prompts: pairs.length,
  };
}

import type { GenerationRequest, Generator, StepFacts } from '../../gateway/src/decode/types.ts';
import { bothWays, type Pair } from '../passes.ts';
import { excerpts, type Prompt } from '../prompts.ts';
import { median } from '../statistics.ts';
import { REFERENCE } from './decode.ts';

/** Contexts to measure at, tokens; those that the model has room for. */
const CONTEXTS = [128, 256, 512, 1024, 2048, 4096];

/** Time of a step by the length of its context, drafter on and off in turn. */
export async function context(
  generator: Generator,
  prompts: readonly Prompt[],
  repeats: number,
  maxTokens: number,
): Promise<Record<string, unknown>> {
  const { contextLength, endOfText } = generator.model;
  const text = excerpts(prompts, endOfText);
  const lengths = CONTEXTS.map((length) => Math.min(length, contextLength - maxTokens));
  const rows = [];
  for (const length of [...new Set(lengths)]) {
    const steps: Pair<StepStats[]> = { plain: [], drafted: [] };
    for (let turn = 0; turn < repeats; turn++) {
      const prompt = [endOfText, ...text(turn, length - 1)];
      const request = { prompt, sampling: REFERENCE, seed: BigInt(turn), maxTokens };
      const { plain, drafted } = await bothWays(turn, (drafting) => pass(generator, { ...request, drafting }));
      steps.plain.push(...plain);
      steps.drafted.push(...drafted);
    }
    const { plain, drafted } = steps;
    rows.push({
      context: length,
      step_us_p50: { plain: median(plain.map((s) => s.stepMicros)), drafted: median(drafted.map((s) => s.stepMicros)) },
      verify_run_us_p50: {
        plain: median(plain.map((s) => s.verifyRunMicros)),
        block: median(drafted.filter((s) => s.drafted > 0).map((s) => s.verifyRunMicros)),
      },
      draft_run_us_p50: median(drafted.filter((s) => s.draftRunMicros > 0).map((s) => s.draftRunMicros)),
      steps: { plain: plain.length, drafted: drafted.length },
    });
    console.error(JSON.stringify(rows.at(-1)));
  }
  return { rows };
}

async function pass(generator: Generator, request: GenerationRequest): Promise<StepStats[]> {
  const steps: StepStats[] = [];
  for await (const { stats } of generator.generate(request, new AbortController().signal)) steps.push(stats);
  return steps;
}

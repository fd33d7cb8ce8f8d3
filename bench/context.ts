import type { Generator, StepFacts } from '../gateway/src/generation.ts';
import { REFERENCE } from './decode.ts';
import type { Prompt } from './prompts.ts';
import { median } from './statistics.ts';

/** Contexts to measure at, tokens; those that the model has room for. */
const CONTEXTS = [128, 256, 512, 1024, 2048, 4096];

/** Time of a step by the length of its context, drafter on and off in turn. */
export async function context(
  generator: Generator,
  prompts: readonly Prompt[],
  repeats: number,
  maxTokens: number,
): Promise<Record<string, unknown>> {
  const { contextLength, endOfText } = generator.facts;
  const text = prompts.flatMap(({ tokens }) => tokens.filter((token) => token !== endOfText));
  const lengths = CONTEXTS.map((length) => Math.min(length, contextLength - maxTokens));
  const rows = [];
  for (const length of [...new Set(lengths)]) {
    const steps: { plain: StepFacts[]; drafted: StepFacts[] } = { plain: [], drafted: [] };
    for (let turn = 0; turn < 2 * repeats; turn++) {
      const kind = turn % 2 === 0 ? 'plain' : 'drafted';
      const start = (Math.floor(turn / 2) * 997) % (text.length - length);
      const request = {
        prompt: [endOfText, ...text.slice(start, start + length - 1)],
        sampling: REFERENCE,
        seed: BigInt(turn >> 1),
        maxTokens,
        drafting: kind === 'drafted',
      };
      for await (const { facts } of generator.generate(request, new AbortController().signal)) steps[kind].push(facts);
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

import { bothWays, decodeRequest, REFERENCE } from '../passes.ts';
import { excerpts } from '../prompts.ts';
import { median } from '../statistics.ts';
import { type PairBench, pairSuite } from '../suite.ts';

/** Context lengths in tokens, limited to the context of the model. */
const CONTEXTS = [128, 256, 512, 1024, 2048, 4096];

export const context = pairSuite({
  name: 'context',
  description: 'Measure the step time by context length, with and without the drafter',
  counts: { tokens: 32, repeats: 4 },
  run: measure,
});

async function measure({ generator, prompts, options }: PairBench): Promise<object> {
  const { tokens: maxTokens, repeats } = options;
  const { contextLength, endOfText } = generator.model;
  const text = excerpts(prompts, endOfText);
  const rows = [];
  for (const length of new Set(CONTEXTS.map((length) => Math.min(length, contextLength - maxTokens)))) {
    const passes = await bothWays(repeats, (drafting, turn) => {
      const prompt = [endOfText, ...text(turn, length - 1)];
      return decodeRequest(generator, { prompt, sampling: REFERENCE, seed: BigInt(turn), maxTokens, drafting });
    });
    const plain = passes.plain.flatMap(({ steps }) => steps);
    const drafted = passes.drafted.flatMap(({ steps }) => steps);
    rows.push({
      context: length,
      step_us_p50: { plain: median(plain.map((s) => s.stepMicros)), drafted: median(drafted.map((s) => s.stepMicros)) },
      verify_run_us_p50: {
        plain: median(plain.map((s) => s.verifyRunMicros)),
        block: median(drafted.filter((s) => s.drafted > 0).map((s) => s.verifyRunMicros)),
      },
    });
    console.error(JSON.stringify(rows.at(-1)));
  }
  return { rows };
}

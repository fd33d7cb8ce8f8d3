import { bothWays, decodeRequest, type Pair, type Pass, REFERENCE } from '../passes.ts';
import { excerpts } from '../prompts.ts';
import { median } from '../statistics.ts';
import {
  type PairBench,
  type PairOptions,
  pairOptions,
  repeatsOption,
  suite,
  tokensOption,
  withPair,
} from '../suite.ts';

/** Context lengths in tokens, limited to the context of the model. */
const CONTEXTS = [128, 256, 512, 1024, 2048, 4096];

interface Options extends PairOptions {
  readonly tokens: number;
  readonly repeats: number;
}

export const context = suite<Options>(
  'context',
  'Measure the step time by context length, with and without the drafter',
  [...pairOptions(), tokensOption(32), repeatsOption(4)],
  (options) => withPair(options, (bench) => measure(bench, options)),
);

async function measure({ generator, prompts }: PairBench, { tokens: maxTokens, repeats }: Options): Promise<object> {
  const { contextLength, endOfText } = generator.model;
  const text = excerpts(prompts, endOfText);
  const rows = [];
  for (const length of new Set(CONTEXTS.map((length) => Math.min(length, contextLength - maxTokens)))) {
    const turns: Pair<Pass>[] = [];
    for (let turn = 0; turn < repeats; turn++) {
      const prompt = [endOfText, ...text(turn, length - 1)];
      const request = { prompt, sampling: REFERENCE, seed: BigInt(turn), maxTokens };
      turns.push(await bothWays(turn, (drafting) => decodeRequest(generator, { ...request, drafting })));
    }
    const plain = turns.flatMap((turn) => turn.plain.steps);
    const drafted = turns.flatMap((turn) => turn.drafted.steps);
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

import type { Generator } from '../../gateway/src/decode/types.ts';
import { excerpts, type Prompt } from '../prompts.ts';
import { median, round } from '../statistics.ts';
import { REFERENCE } from './decode.ts';

/** Prompt lengths to measure, tokens; those that the model has room for. */
const LENGTHS = [16, 64, 128, 256, 512, 1024, 2048];

/** Time to the first token, without the drafter, by the length of the prompt: new ones, and the same again, which the prefix cache knows. */
export async function prefill(
  generator: Generator,
  prompts: readonly Prompt[],
  repeats: number,
): Promise<Record<string, unknown>> {
  const { contextLength, endOfText, vocabulary } = generator.model;
  const text = excerpts(prompts, endOfText);
  const rows = [];
  let unique = 0;
  for (const length of LENGTHS.filter((n) => n < contextLength)) {
    const times: { fresh: number[]; known: number[] } = { fresh: [], known: [] };
    let reused = 0;
    for (let turn = 0; turn < repeats; turn++) {
      // no two fresh prompts begin alike: after the first token comes a number in the vocabulary's digits
      const number = unique++;
      const head = [
        endOfText,
        1 + (number % (vocabulary - 1)),
        1 + (Math.floor(number / (vocabulary - 1)) % (vocabulary - 1)),
      ];
      const prompt = [...head, ...text(turn, length - head.length)];
      for (const kind of ['fresh', 'known'] as const) {
        const began = performance.now();
        const request = { prompt, sampling: REFERENCE, seed: BigInt(turn), maxTokens: 1, drafting: false };
        for await (const step of generator.generate(request, new AbortController().signal)) {
          if (kind === 'known') reused += step.reusedTokens ?? 0;
        }
        times[kind].push((performance.now() - began) * 1000);
      }
    }
    rows.push({
      prompt: length,
      first_token_us_p50: { fresh: Math.round(median(times.fresh)), known: Math.round(median(times.known)) },
      tokens_per_second_fresh: Math.round((length / median(times.fresh)) * 1e6),
      ratio: round(median(times.fresh.map((fresh, i) => fresh / (times.known[i] ?? Number.NaN)))),
      reused_share: round(reused / repeats / (length - 1)),
    });
    console.error(JSON.stringify(rows.at(-1)));
  }
  return { rows };
}

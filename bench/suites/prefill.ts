import { decodeRequest, REFERENCE } from '../passes.ts';
import { excerpts } from '../prompts.ts';
import { median, round } from '../statistics.ts';
import { type PairBench, type PairOptions, pairOptions, repeatsOption, suite, withPair } from '../suite.ts';

/** Prompt lengths in tokens; those that exceed the model's context are skipped. */
const LENGTHS = [16, 64, 128, 256, 512, 1024, 2048];

interface Options extends PairOptions {
  readonly repeats: number;
}

export const prefill = suite<Options>(
  'prefill',
  'Measure the time to the first token by prompt length, uncached and cached, without a drafter',
  [...pairOptions(), repeatsOption(9)],
  (options) => withPair(options, (bench) => measure(bench, options.repeats), { ...options, prefixCache: true }),
);

async function measure({ generator, prompts }: PairBench, repeats: number): Promise<object> {
  const { contextLength, endOfText, vocabulary } = generator.model;
  const text = excerpts(prompts, endOfText);
  const rows = [];
  let serial = 0;
  for (const length of LENGTHS.filter((n) => n < contextLength)) {
    const times: { fresh: number[]; cached: number[] } = { fresh: [], cached: [] };
    let reused = 0;
    for (let turn = 0; turn < repeats; turn++) {
      const head = uniqueHead(serial++, endOfText, vocabulary);
      const prompt = [...head, ...text(turn, length - head.length)];
      for (const kind of ['fresh', 'cached'] as const) {
        const request = { prompt, sampling: REFERENCE, seed: BigInt(turn), maxTokens: 1, drafting: false };
        const pass = await decodeRequest(generator, request);
        if (kind === 'cached') reused += pass.reusedTokens;
        times[kind].push((pass.ended - pass.began) * 1000);
      }
    }
    rows.push({
      prompt: length,
      first_token_us_p50: { fresh: Math.round(median(times.fresh)), known: Math.round(median(times.cached)) },
      tokens_per_second_fresh: Math.round((length / median(times.fresh)) * 1e6),
      ratio: round(median(times.fresh.map((fresh, i) => fresh / (times.cached[i] ?? Number.NaN)))),
      reused_share: round(reused / repeats / (length - 1)),
    });
    console.error(JSON.stringify(rows.at(-1)));
  }
  return { rows };
}

/** Tokens that begin no other prompt: a serial number, written with the vocabulary as digits. */
function uniqueHead(serial: number, endOfText: number, vocabulary: number): number[] {
  const base = vocabulary - 1;
  return [endOfText, 1 + (serial % base), 1 + (Math.floor(serial / base) % base)];
}

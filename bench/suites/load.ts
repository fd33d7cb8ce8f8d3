import { Option } from 'commander';
import type { GenerationRequest, Generator } from '../../gateway/src/decode/types.ts';
import { bothWays, decodeRequest, type Measured, REFERENCE } from '../passes.ts';
import { median, round, sum } from '../statistics.ts';
import { integer, type PairBench, pairSuite } from '../suite.ts';

export const load = pairSuite({
  name: 'load',
  description:
    'Measure throughput and time per token by the number of concurrent streams, with and without the drafter',
  counts: { tokens: 128, repeats: 4 },
  options: [
    new Option('--streams <list>', 'numbers of concurrent streams')
      .argParser((text) => text.split(',').map(integer()))
      .default([1, 2, 4, 8, 16, 32], '1,2,4,8,16,32'),
  ],
  run: measure,
});

/** Figures of one measurement, over all its streams. */
interface Load {
  readonly tokensPerSecond: number;
  /**
   * Times per token in milliseconds, one value per stream, counted from the end of its first step. Streams of a single
   * step are omitted.
   */
  readonly millisPerToken: readonly number[];
}

/** Each ratio compares two measurements made in direct succession. */
async function measure({ generator, prompts, options }: PairBench): Promise<object> {
  const rows = [];
  for (const streams of options.streams) {
    const { plain, drafted } = await bothWays(options.repeats, (drafting, turn) => {
      const requests = Array.from({ length: streams }, (_, i): GenerationRequest => {
        const prompt = prompts[(turn * streams + i) % prompts.length] ?? [];
        const seed = BigInt(turn * 1000 + i);
        return { prompt, sampling: REFERENCE, seed, maxTokens: options.tokens, drafting };
      });
      return decodeTogether(generator, requests);
    });
    const both = (figure: (loads: readonly Load[]) => number): Record<keyof Measured<Load>, number> => ({
      plain: figure(plain),
      drafted: figure(drafted),
    });
    const ratios = plain.map(({ tokensPerSecond }, i) => (drafted[i]?.tokensPerSecond ?? 0) / tokensPerSecond);
    rows.push({
      streams,
      tokens_per_second: both((loads) => round(median(loads.map((one) => one.tokensPerSecond)), 1)),
      throughput_ratio: round(median(ratios)),
      ms_per_token_p50: both((loads) => round(median(loads.flatMap((one) => one.millisPerToken)), 2)),
    });
    console.error(JSON.stringify(rows.at(-1)));
  }
  return { rows };
}

async function decodeTogether(generator: Generator, requests: readonly GenerationRequest[]): Promise<Load> {
  const began = performance.now();
  const passes = await Promise.all(requests.map((request) => decodeRequest(generator, request)));
  const tokens = sum(passes.map((pass) => pass.tokens.length));
  return {
    tokensPerSecond: (1000 * tokens) / (performance.now() - began),
    millisPerToken: passes.flatMap(({ tokens, firstTokens, first, ended }) =>
      tokens.length > firstTokens ? [(ended - first) / (tokens.length - firstTokens)] : [],
    ),
  };
}

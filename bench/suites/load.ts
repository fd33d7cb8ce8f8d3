import { Option } from 'commander';
import type { GenerationRequest, Generator } from '../../gateway/src/decode/types.ts';
import { bothWays, decodeRequest, type Pair, REFERENCE } from '../passes.ts';
import type { Prompt } from '../prompts.ts';
import { median, round, sum } from '../statistics.ts';
import {
  integer,
  type PairBench,
  type PairOptions,
  pairOptions,
  repeatsOption,
  suite,
  tokensOption,
  withPair,
} from '../suite.ts';

interface Options extends PairOptions {
  readonly tokens: number;
  readonly repeats: number;
  readonly streams: readonly number[];
}

export const load = suite<Options>(
  'load',
  'Measure throughput and time per token by the number of concurrent streams, with and without the drafter',
  [
    ...pairOptions(),
    tokensOption(128),
    repeatsOption(4),
    new Option('--streams <list>', 'numbers of concurrent streams')
      .argParser((text) => text.split(',').map(integer()))
      .default([1, 2, 4, 8, 16, 32], '1,2,4,8,16,32'),
  ],
  (options) => withPair(options, (bench) => measure(bench, options)),
);

/** Figures of one measurement, over all its streams. */
interface Measured {
  readonly tokens: number;
  /** Tokens per second. */
  readonly rate: number;
  /** One value per stream, counted from the end of its first step. Streams of a single step are left out. */
  readonly millisPerToken: readonly number[];
}

/** Each ratio compares two measurements made in direct succession. */
async function measure({ generator, prompts }: PairBench, { streams, tokens, repeats }: Options): Promise<object> {
  const rows = [];
  for (const count of streams) {
    const turns: Pair<Measured>[] = [];
    for (let turn = 0; turn < repeats; turn++) {
      const requests = Array.from({ length: count }, (_, i): GenerationRequest => {
        const prompt = prompts[(turn * count + i) % prompts.length] as Prompt;
        return { prompt: prompt.tokens, sampling: REFERENCE, seed: BigInt(turn * 1000 + i), maxTokens: tokens };
      });
      turns.push(await bothWays(turn, (drafting) => decodeTogether(generator, requests, drafting)));
    }
    const perToken = (way: keyof Pair<Measured>) => round(median(turns.flatMap((t) => t[way].millisPerToken)), 2);
    const rate = (way: keyof Pair<Measured>) => round(median(turns.map((t) => t[way].rate)), 1);
    rows.push({
      streams: count,
      tokens_per_second: { plain: rate('plain'), drafted: rate('drafted') },
      throughput_ratio: round(median(turns.map((t) => t.drafted.rate / t.plain.rate))),
      ms_per_token_p50: { plain: perToken('plain'), drafted: perToken('drafted') },
      tokens: sum(turns.map((t) => t.plain.tokens + t.drafted.tokens)),
    });
    console.error(JSON.stringify(rows.at(-1)));
  }
  return { rows };
}

async function decodeTogether(
  generator: Generator,
  requests: readonly GenerationRequest[],
  drafting: boolean,
): Promise<Measured> {
  const began = performance.now();
  const passes = await Promise.all(requests.map((request) => decodeRequest(generator, { ...request, drafting })));
  const tokens = sum(passes.map((pass) => pass.tokens.length));
  return {
    tokens,
    rate: (1000 * tokens) / (performance.now() - began),
    millisPerToken: passes.flatMap(({ tokens, firstTokens, first, ended }) =>
      tokens.length > firstTokens ? [(ended - first) / (tokens.length - firstTokens)] : [],
    ),
  };
}

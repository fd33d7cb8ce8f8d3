import type { GenerationRequest, Generator } from '../../gateway/src/decode/types.ts';
import { bothWays, type Pair } from '../passes.ts';
import type { Prompt } from '../prompts.ts';
import { median, round, sum } from '../statistics.ts';
import { REFERENCE } from './decode.ts';

interface Pass {
  readonly tokens: number;
  readonly micros: number;
  /** Of each stream, from its first step's end on. */
  readonly microsPerToken: number[];
}

/**
 * Throughput and time per token with so many streams at once, drafter on and off in turn, `repeats` times each. Ratios are of the
 * passes of one turn, which stand next to each other.
 */
export async function load(
  generator: Generator,
  prompts: readonly Prompt[],
  streams: readonly number[],
  maxTokens: number,
  repeats: number,
): Promise<Record<string, unknown>> {
  const rows = [];
  for (const count of streams) {
    const turns: Pair<Pass>[] = [];
    for (let turn = 0; turn < repeats; turn++) {
      const requests = Array.from({ length: count }, (_, i): GenerationRequest => {
        const { tokens } = prompts[(turn * count + i) % prompts.length] as Prompt;
        return { prompt: tokens, sampling: REFERENCE, seed: BigInt(turn * 1000 + i), maxTokens };
      });
      turns.push(await bothWays(turn, (drafting) => pass(generator, requests, drafting)));
    }
    const rate = ({ tokens, micros }: Pass) => (tokens / micros) * 1e6;
    const perToken = (of: keyof Pair<Pass>) => round(median(turns.flatMap((t) => t[of].microsPerToken)) / 1000, 2);
    rows.push({
      streams: count,
      tokens_per_second: {
        plain: round(median(turns.map((t) => rate(t.plain))), 1),
        drafted: round(median(turns.map((t) => rate(t.drafted))), 1),
      },
      throughput_ratio: round(median(turns.map((t) => rate(t.drafted) / rate(t.plain)))),
      ms_per_token_p50: { plain: perToken('plain'), drafted: perToken('drafted') },
      tokens: sum(turns.map((t) => t.plain.tokens + t.drafted.tokens)),
    });
    console.error(JSON.stringify(rows.at(-1)));
  }
  return { rows };
}

async function pass(generator: Generator, requests: readonly GenerationRequest[], drafting: boolean): Promise<Pass> {
  const began = performance.now();
  const streams = await Promise.all(
    requests.map(async (request) => {
      let tokens = 0;
      let first = 0;
      let counted = 0;
      for await (const step of generator.generate({ ...request, drafting }, new AbortController().signal)) {
        tokens += step.tokens.length;
        if (first === 0) first = performance.now();
        else counted += step.tokens.length;
      }
      return { tokens, perToken: counted > 0 ? ((performance.now() - first) * 1000) / counted : Number.NaN };
    }),
  );
  const micros = (performance.now() - began) * 1000;
  const microsPerToken = streams.map((stream) => stream.perToken).filter((value) => !Number.isNaN(value));
  return { tokens: sum(streams.map((stream) => stream.tokens)), micros, microsPerToken };
}

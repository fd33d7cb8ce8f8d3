import type { Generator, StepStats } from '../../gateway/src/decode/types.ts';
import { bothWays, decodeMicros, decodeRequest, type Pair, type Pass, REFERENCE } from '../passes.ts';
import type { Prompt } from '../prompts.ts';
import { countBy, mean, median, round, sum } from '../statistics.ts';
import { type PairOptions, pairOptions, promptsOption, suite, tokensOption, withPair } from '../suite.ts';

type Measured = Pair<Pass> & { readonly split: string };

/** Number of warm-up prompts, during which code is compiled and the controller settles. A server warms up in its first minute. */
const WARM_UP = 4;
/** Shorter texts are left out, because they take too little time to measure. */
const MIN_TOKENS = 16;

interface Options extends PairOptions {
  readonly tokens: number;
  readonly prompts: number;
}

export const decode = suite<Options>(
  'decode',
  'Measure the speed of one stream with and without the drafter, on held-out prompts',
  [...pairOptions(), tokensOption(128), promptsOption(32)],
  (options) =>
    withPair(options, ({ generator, prompts }) =>
      measure(generator, prompts.slice(0, options.prompts), options.tokens),
    ),
);

/** The figures exclude prefill and the first draft. `mode_by_step` lists the first letter of each step's mode. */
async function measure(generator: Generator, prompts: readonly Prompt[], maxTokens: number): Promise<object> {
  const pairs: Measured[] = [];
  const modes: string[] = [];
  const warmUp = prompts.slice(-WARM_UP);
  for (const [i, { tokens, split }] of [...warmUp, ...prompts].entries()) {
    const request = { prompt: tokens, sampling: REFERENCE, seed: BigInt(i), maxTokens };
    const pair = await bothWays(i, (drafting) => decodeRequest(generator, { ...request, drafting }));
    modes.push(...pair.drafted.steps.map(({ mode }) => mode));
    if (i >= warmUp.length && pair.plain.tokens.length >= MIN_TOKENS) pairs.push({ ...pair, split });
    process.stderr.write(`\r${i + 1}/${warmUp.length + prompts.length} prompts`);
  }
  process.stderr.write('\n');
  return { ...speed(pairs), ...steps(pairs), mode_by_step: modes.map((mode) => mode[0]).join('') };
}

function speed(pairs: readonly Measured[]): object {
  const tokens = (way: keyof Pair<Pass>) => sum(pairs.map((pair) => pair[way].tokens.length));
  const perToken = (way: keyof Pair<Pass>) => sum(pairs.map((pair) => decodeMicros(pair[way]))) / tokens(way);
  const ofOne = (pass: Pass) => decodeMicros(pass) / pass.tokens.length;
  const perCall = (some: readonly Measured[]) =>
    round(sum(some.map((p) => p.drafted.tokens.length)) / sum(some.map((p) => p.drafted.steps.length)));
  return {
    tokens_per_call: perCall(pairs),
    tokens_per_call_by_split: Object.fromEntries(
      [...Map.groupBy(pairs, ({ split }) => split)].map(([split, some]) => [split, perCall(some)]),
    ),
    speedup_vs_ar: round(median(pairs.map((p) => ofOne(p.plain) / ofOne(p.drafted)))),
    speedup_total: round(perToken('plain') / perToken('drafted')),
    micros_per_token: { plain: Math.round(perToken('plain')), drafted: Math.round(perToken('drafted')) },
    tokens: tokens('drafted'),
    prompts: pairs.length,
  };
}

function steps(pairs: readonly Measured[]): object {
  const drafted = pairs.flatMap((pair) => pair.drafted.steps);
  const plain = pairs.flatMap((pair) => pair.plain.steps);
  // steps whose draft and verify calls overlapped; a redraft precedes its verify call
  const overlapped = drafted.filter((s) => s.draftMicros > 0 && s.redraftMicros === 0);
  const ahead = drafted.map((s) => s.aheadMicros).filter((micros) => micros > 0);
  const p50 = (some: readonly StepStats[], value: (step: StepStats) => number) => median(some.map(value));
  return {
    overlap_ratio: round(p50(overlapped, (s) => s.stepMicros / Math.max(s.draftMicros, s.verifyMicros))),
    overlap_ratio_to_sum: round(p50(overlapped, (s) => s.stepMicros / (s.draftMicros + s.verifyMicros))),
    overhead_us_p50: p50(overlapped, (s) => s.stepMicros - Math.max(s.draftRunMicros, s.verifyRunMicros)),
    overhead_us_p50_plain: p50(plain, (s) => s.stepMicros - s.verifyRunMicros),
    step_us_p50: { plain: p50(plain, (s) => s.stepMicros), drafted: p50(drafted, (s) => s.stepMicros) },
    verify_run_us_p50: {
      plain: p50(plain, (s) => s.verifyRunMicros),
      block: p50(
        drafted.filter((s) => s.drafted > 0),
        (s) => s.verifyRunMicros,
      ),
    },
    draft_run_us_p50: p50(overlapped, (s) => s.draftRunMicros),
    steps: {
      all: drafted.length,
      redrafted: drafted.filter((s) => s.redraftMicros > 0).length,
      without_block: drafted.filter((s) => s.drafted === 0).length,
    },
    by_source: Object.fromEntries(
      [...Map.groupBy(drafted, ({ source }) => source)].map(([source, some]) => [
        source,
        { steps: some.length, tokens_per_call: round(1 + mean(some.map((s) => s.accepted))) },
      ]),
    ),
    modes: countBy(drafted.map((s) => `${s.mode}, ${s.reason}`)),
    sent_ahead: { share: round(ahead.length / drafted.length), us_p50: median(ahead) },
    block_length_mean: round(mean(drafted.map((s) => s.drafted))),
    acceptance_by_position: Array.from({ length: Math.max(...drafted.map((s) => s.drafted)) }, (_, k) => {
      const reached = drafted.filter((s) => s.drafted > k);
      return round(reached.filter((s) => s.accepted > k).length / reached.length);
    }),
  };
}

import type { StepStats } from '../../gateway/src/decode/types.ts';
import { bothWays, decodeMicros, decodeRequest, type Measured, type Pass, REFERENCE } from '../passes.ts';
import { median, round, sum } from '../statistics.ts';
import { type PairBench, pairSuite } from '../suite.ts';

/**
 * Number of warm-up prompts, during which code is compiled and the controller settles. A server warms up in its first
 * minute.
 */
const WARM_UP = 4;
/** Minimum number of tokens in a text. Shorter texts take too little time to measure. */
const MIN_TOKENS = 16;

export const decode = pairSuite({
  name: 'decode',
  description: 'Measure the speed of one stream with and without the drafter, on held-out prompts',
  counts: { tokens: 128, prompts: 32 },
  run: measure,
});

/** The figures exclude prefill and the first draft. `mode_by_step` lists the first letter of each step's mode. */
async function measure({ generator, prompts, options }: PairBench): Promise<object> {
  const turns = [...prompts.slice(-WARM_UP), ...prompts];
  const all = await bothWays(turns.length, (drafting, turn) => {
    const request = { sampling: REFERENCE, seed: BigInt(turn), maxTokens: options.tokens, drafting };
    return decodeRequest(generator, { ...request, prompt: turns[turn] ?? [] });
  });
  const isCounted = (_: Pass, turn: number) =>
    turn >= turns.length - prompts.length && (all.plain[turn]?.tokens.length ?? 0) >= MIN_TOKENS;
  const passes = { plain: all.plain.filter(isCounted), drafted: all.drafted.filter(isCounted) };
  const modes = all.drafted.flatMap(({ steps }) => steps.map(({ mode }) => mode[0]));
  return { ...speed(passes), ...steps(passes), mode_by_step: modes.join('') };
}

function speed({ plain, drafted }: Measured<Pass>): object {
  const tokens = (passes: readonly Pass[]) => sum(passes.map((pass) => pass.tokens.length));
  const perToken = (...passes: Pass[]) => sum(passes.map(decodeMicros)) / tokens(passes);
  return {
    tokens_per_call: round(tokens(drafted) / sum(drafted.map((pass) => pass.steps.length))),
    speedup_vs_ar: round(median(plain.map((pass, i) => perToken(pass) / perToken(drafted[i] as Pass)))),
    speedup_total: round(perToken(...plain) / perToken(...drafted)),
    micros_per_token: { plain: Math.round(perToken(...plain)), drafted: Math.round(perToken(...drafted)) },
    tokens: tokens(drafted),
    prompts: drafted.length,
  };
}

function steps(passes: Measured<Pass>): object {
  const [plain, drafted] = [passes.plain, passes.drafted].map((some) => some.flatMap((pass) => pass.steps)) as [
    StepStats[],
    StepStats[],
  ];
  const blocks = drafted.filter((s) => s.drafted > 0);
  // These are the steps whose draft and verify calls overlapped. A redraft precedes its verify call.
  const overlapped = drafted.filter((s) => s.draftMicros > 0 && s.redraftMicros === 0);
  const p50 = (some: readonly StepStats[], value: (step: StepStats) => number) => median(some.map(value));
  return {
    overlap_ratio: round(p50(overlapped, (s) => s.stepMicros / Math.max(s.draftMicros, s.verifyMicros))),
    overhead_us_p50: p50(overlapped, (s) => s.stepMicros - Math.max(s.draftRunMicros, s.verifyRunMicros)),
    verify_run_us_p50: { plain: p50(plain, (s) => s.verifyRunMicros), block: p50(blocks, (s) => s.verifyRunMicros) },
    draft_run_us_p50: p50(overlapped, (s) => s.draftRunMicros),
    sent_ahead: round(drafted.filter((s) => s.aheadMicros > 0).length / drafted.length),
  };
}

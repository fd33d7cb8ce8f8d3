import type { SamplingParams } from '@ptp/protocol/sampling-params';
import type { GenerationRequest, Generator } from '../../gateway/src/decode/types.ts';
import { decodeRequest, type Pass } from '../passes.ts';
import { sum } from '../statistics.ts';
import { type PairBench, pairSuite } from '../suite.ts';

/**
 * Sampling parameters to compare: greedy sampling, the parameters of the paper's Spec-Bench figures, and OpenAI's
 * defaults.
 */
const SETTINGS: readonly SamplingParams[] = [
  { temperature: 0, topK: 0, topP: 1 },
  { temperature: 0.7, topK: 50, topP: 0.9 },
  { temperature: 1, topK: 0, topP: 1 },
];
/** Number of sequences decoded concurrently. */
const CONCURRENCY = 8;

const noCounts = () => ({
  /** Number of tokens compared with the reference. */
  tokens: 0,
  /** Number of compared tokens that differ or are missing. */
  mismatches: 0,
  /** Number of tokens in the reference. Each is compared three times. */
  reference_tokens: 0,
  sequences: 0,
  /**
   * Numbers of drafted and accepted tokens in the compared texts. If no tokens were accepted, the comparison would
   * prove nothing.
   */
  drafted: 0,
  accepted: 0,
});
type Counts = ReturnType<typeof noCounts>;

/** The process exits with 1 after a mismatch, or if no drafted token was accepted. */
export const exact = pairSuite({
  name: 'exact',
  description:
    'Compare texts decoded with and without the drafter, one sequence and eight sequences at a time, token by token',
  counts: { tokens: 128, sequences: 20 },
  services: { prefixCache: true },
  async run(bench) {
    const counts = await compareAll(bench);
    if (counts.mismatches > 0 || counts.accepted === 0) process.exitCode = 1;
    return counts;
  },
});

/**
 * Compares three ways of decoding with the reference, which is plain decoding of one sequence at a time: with the
 * drafter, one sequence at a time; and with and without the drafter, eight sequences at a time, which forms batches.
 * All seeds differ.
 */
async function compareAll({ generator, prompts, options }: PairBench): Promise<Counts> {
  const counts = noCounts();
  for (const sampling of SETTINGS) {
    const requests = Array.from({ length: options.sequences }, (_, i): GenerationRequest => {
      const prompt = prompts[i % prompts.length] ?? [];
      return { prompt, sampling, seed: BigInt(1000 + i), maxTokens: options.tokens };
    });
    const before = { ...counts };
    for (let start = 0; start < requests.length; start += CONCURRENCY) {
      await compareGroup(generator, requests.slice(start, start + CONCURRENCY), counts);
      process.stderr.write(`\rtemperature ${sampling.temperature}: ${counts.tokens - before.tokens} tokens compared`);
    }
    process.stderr.write(`, ${counts.mismatches - before.mismatches} mismatches\n`);
  }
  return counts;
}

async function compareGroup(generator: Generator, group: readonly GenerationRequest[], counts: Counts): Promise<void> {
  const decode = (request: GenerationRequest, drafting: boolean) => decodeRequest(generator, { ...request, drafting });
  const oneByOne = async (drafting: boolean) => {
    const passes: Pass[] = [];
    for (const request of group) passes.push(await decode(request, drafting));
    return passes;
  };
  const together = (drafting: boolean) => Promise.all(group.map((request) => decode(request, drafting)));
  const reference = await oneByOne(false);
  counts.reference_tokens += sum(reference.map(({ tokens }) => tokens.length));
  for (const passes of [await oneByOne(true), await together(false), await together(true)]) {
    for (const [i, { tokens, steps }] of passes.entries()) {
      const expected = reference[i]?.tokens ?? [];
      const length = Math.max(expected.length, tokens.length);
      for (let k = 0; k < length; k++) if (expected[k] !== tokens[k]) counts.mismatches++;
      counts.tokens += length;
      counts.sequences++;
      counts.drafted += sum(steps.map(({ drafted }) => drafted));
      counts.accepted += sum(steps.map(({ accepted }) => accepted));
    }
  }
}

import type { SamplingParams } from '@ptp/protocol/sampling-params';
import type { GenerationRequest, Generator } from '../../gateway/src/decode/types.ts';
import type { Prompt } from '../prompts.ts';

/** Sampling of the comparisons: greedy, the reference setting, and the OpenAI default. */
const SETTINGS: readonly SamplingParams[] = [
  { temperature: 0, topK: 0, topP: 1 },
  { temperature: 0.7, topK: 50, topP: 0.9 },
  { temperature: 1, topK: 0, topP: 1 },
];
const TOGETHER = 8;

export interface ExactResult {
  /** Tokens compared with the reference, and how many of them differ or are missing. */
  tokens: number;
  mismatches: number;
  /** Tokens of the reference, each of which was compared three times. */
  reference_tokens: number;
  sequences: number;
  /** What the drafter contributed to the compared texts: without it the comparison says nothing. */
  drafted: number;
  accepted: number;
}

/**
 * Compares texts token by token. The reference is plain decoding, alone; against it stand decoding with the drafter alone, and
 * both kinds eight at once, where batches form. Seeds differ between all sequences.
 *
 * @param count sequences of reference per setting
 */
export async function exact(
  generator: Generator,
  prompts: readonly Prompt[],
  count: number,
  maxTokens: number,
): Promise<ExactResult> {
  const result: ExactResult = {
    tokens: 0,
    mismatches: 0,
    reference_tokens: 0,
    sequences: 0,
    drafted: 0,
    accepted: 0,
  };
  for (const sampling of SETTINGS) {
    const requests = Array.from({ length: count }, (_, i): GenerationRequest => {
      const prompt = prompts[i % prompts.length] as Prompt;
      return { prompt: prompt.tokens, sampling, seed: BigInt(1000 + i), maxTokens };
    });
    const before = { ...result };
    for (let start = 0; start < requests.length; start += TOGETHER) {
      const group = requests.slice(start, start + TOGETHER);
      const reference: number[][] = [];
      for (const request of group) reference.push(await text(generator, request, false, result));
      const alone: number[][] = [];
      for (const request of group) alone.push(await text(generator, request, true, result));
      const plainTogether = await Promise.all(group.map((request) => text(generator, request, false, result)));
      const draftedTogether = await Promise.all(group.map((request) => text(generator, request, true, result)));
      for (const tokens of reference) result.reference_tokens += tokens.length;
      for (const other of [alone, plainTogether, draftedTogether]) compare(reference, other, result);
      process.stderr.write(
        `\rtemperature ${sampling.temperature}: ${start + group.length}/${count} sequences, ${result.tokens} tokens compared`,
      );
    }
    const tokens = result.tokens - before.tokens;
    process.stderr.write(
      `\rtemperature ${sampling.temperature}: ${tokens} tokens, ${result.mismatches - before.mismatches} mismatches\n`,
    );
  }
  return result;
}

async function text(
  generator: Generator,
  request: GenerationRequest,
  drafting: boolean,
  result: ExactResult,
): Promise<number[]> {
  const tokens: number[] = [];
  for await (const step of generator.generate({ ...request, drafting }, new AbortController().signal)) {
    tokens.push(...step.tokens);
    result.drafted += step.stats.drafted;
    result.accepted += step.stats.accepted;
  }
  return tokens;
}

function compare(reference: number[][], other: number[][], result: ExactResult): void {
  reference.forEach((expected, i) => {
    const got = other[i] ?? [];
    const length = Math.max(expected.length, got.length);
    for (let k = 0; k < length; k++) if (expected[k] !== got[k]) result.mismatches++;
    result.tokens += length;
    result.sequences++;
  });
}

import { decodeRequest, REFERENCE } from '../passes.ts';
import { excerpts } from '../prompts.ts';
import { median, round } from '../statistics.ts';
import { type PairBench, pairSuite } from '../suite.ts';

/** Prompt lengths in tokens. Lengths beyond the model's context are skipped. */
const LENGTHS = [16, 64, 128, 256, 512, 1024, 2048];

export const prefill = pairSuite({
  name: 'prefill',
  description: 'Measure the time to the first token by prompt length, uncached and cached, without a drafter',
  counts: { repeats: 9 },
  services: { prefixCache: true },
  run: measure,
});

async function measure({ generator, prompts, options }: PairBench): Promise<object> {
  const { contextLength, endOfText, vocabulary } = generator.model;
  const text = excerpts(prompts, endOfText);
  const rows = [];
  let serial = 0;
  for (const length of LENGTHS.filter((n) => n < contextLength)) {
    const times: { fresh: number[]; known: number[] } = { fresh: [], known: [] };
    let reused = 0;
    for (let turn = 0; turn < options.repeats; turn++) {
      const head = uniqueHead(serial++, endOfText, vocabulary);
      const prompt = [...head, ...text(turn, length - head.length)];
      for (const kind of ['fresh', 'known'] as const) {
        const request = { prompt, sampling: REFERENCE, seed: BigInt(turn), maxTokens: 1, drafting: false };
        const pass = await decodeRequest(generator, request);
        if (kind === 'known') reused += pass.reusedTokens;
        times[kind].push((pass.ended - pass.began) * 1000);
      }
    }
    rows.push({
      prompt: length,
      first_token_us_p50: { fresh: Math.round(median(times.fresh)), known: Math.round(median(times.known)) },
      reused_share: round(reused / options.repeats / (length - 1)),
    });
    console.error(JSON.stringify(rows.at(-1)));
  }
  return { rows };
}

/** Returns tokens with which no other prompt begins: a serial number whose digits are tokens of the vocabulary. */
function uniqueHead(serial: number, endOfText: number, vocabulary: number): number[] {
  const base = vocabulary - 1;
  return [endOfText, 1 + (serial % base), 1 + (Math.floor(serial / base) % base)];
}

import { readCachedTokens, readScores, type Scores } from '../engine/src/sglang/answer.ts';
import { candidatePlan } from '../engine/src/sglang/candidate-plan.ts';
import { prefillBody, type ScoreRequest, scoreBody } from '../engine/src/sglang/score-request.ts';
import type { SglangServer } from '../engine/src/sglang/server.ts';

/** Number of tokens in the shared beginning of the scored texts. */
const PREFIX = 256;
/** Number of tokens in a verification: the last committed token and a draft of eight. */
const EXTEND = 9;
/** Number of most probable tokens in the first round of a request with top-p, and in the second. */
const SIZES = [0, 1].map((round) => {
  const need = { sampling: { temperature: 1, topK: 0, topP: 0.9 }, adjustment: undefined, topCount: 0 };
  return candidatePlan(need, round, Number.POSITIVE_INFINITY).top;
});
const [FIRST] = SIZES as [number];

export interface CheckContext {
  readonly server: SglangServer;
  readonly vocabulary: number;
  readonly contextLength: number;
  /** Returns random tokens that no earlier request had. */
  readonly text: (count: number) => number[];
}

/** Outcome of a check: what was found, and whether the engine may rely on it. */
export interface CheckResult {
  readonly ok: boolean;
  readonly found: string;
}

export type Check = (context: CheckContext) => Promise<CheckResult>;

/** What the engine assumes of a server, in the order in which it is checked. Each check assumes the ones before it. */
export const checks: Readonly<Record<string, Check>> = {
  'settings suit the engine': checkSettings,
  'answers have the expected form': checkForm,
  'the vocabulary has the expected size': checkVocabulary,
  'keys and values are reused up to the first scored token': checkReuse,
  'log-probabilities do not depend on the temperature': checkTemperature,
  'named tokens have the same bits as the most probable ones': checkNamed,
  'log-probabilities do not depend on drafts': checkChunks,
  'log-probabilities do not depend on the batch': checkBatches,
  'a draft of eight tokens is scored quickly': checkSpeed,
};

async function checkSettings({ server, contextLength }: CheckContext): Promise<CheckResult> {
  const info = await server.info();
  const limit = info.max_req_input_len;
  const problems = [
    info.enable_deterministic_inference === false && 'start it with --enable-deterministic-inference',
    info.attention_backend === 'flashinfer' &&
      'start it with --attention-backend fa3 or triton: with flashinfer, deterministic inference has no radix cache',
    info.disable_radix_cache && 'start it without --disable-radix-cache',
    info.speculative_algorithm && 'start it without --speculative-algorithm',
    (info.dp_size ?? 1) > 1 && 'start one server for each replica instead of --dp-size',
    limit === undefined &&
      `it does not report max_req_input_len: its --context-length must be above PTP_CONTEXT_LENGTH (now ${contextLength})`,
    limit !== undefined &&
      limit <= contextLength &&
      `set PTP_CONTEXT_LENGTH to at most ${limit - 1} (now ${contextLength})`,
  ].filter((problem) => typeof problem === 'string');
  const { version = 'unknown version', attention_backend: backend, page_size: page, tp_size: tp, pp_size: pp } = info;
  const found = [
    version,
    `attention ${backend}`,
    `page ${page}`,
    `tp ${tp}`,
    `pp ${pp}`,
    `inputs up to ${limit ?? 'unknown'}`,
  ];
  return { ok: problems.length === 0, found: [...found, ...problems].join('; ') };
}

async function checkForm({ server, vocabulary, text }: CheckContext): Promise<CheckResult> {
  const tokens = [...text(30), vocabulary - 1, 0];
  await scoresOf(server, vocabulary, { tokens, at: 0, named: [vocabulary - 1, 5] });
  await scoresOf(server, vocabulary, { tokens, at: 20 });
  return { ok: true, found: `${tokens.length} positions` };
}

async function checkVocabulary({ server, vocabulary, text }: CheckContext): Promise<CheckResult> {
  const started = performance.now();
  // readScores checks that the probabilities of all ids below V sum to 1.
  await scoresOf(server, vocabulary, { tokens: text(4), at: 3, top: vocabulary });
  return { ok: true, found: `${vocabulary} tokens; reading all took ${since(started)}` };
}

async function checkReuse({ server, vocabulary, text }: CheckContext): Promise<CheckResult> {
  const page = (await server.info()).page_size ?? 1;
  const tokens = text(PREFIX + EXTEND);
  const prefill = () =>
    server.generate(prefillBody(tokens.slice(0, PREFIX)), (answer) => readCachedTokens(answer, PREFIX));
  const cold = await prefill();
  const warm = await prefill();
  const at = [PREFIX, PREFIX + 4, PREFIX + 2];
  const cached: number[] = [];
  for (const from of at) {
    const request = requestOf({ tokens, at: from });
    cached.push(await server.generate(scoreBody(request), (answer) => readCachedTokens(answer, tokens.length + 1)));
  }
  await scoresOf(server, vocabulary, { tokens, at: PREFIX });
  const expected = at.map((from) => from - (from % page));
  const ok = cold < PREFIX / 2 && warm >= PREFIX - page && cached.every((count, i) => count === expected[i]);
  return { ok, found: `${cold} of a new prompt, ${warm} of ${PREFIX} when repeated, ${cached} for drafts at ${at}` };
}

async function checkTemperature({ server, vocabulary, text }: CheckContext): Promise<CheckResult> {
  const tokens = text(32);
  const request = requestOf({ tokens, at: 0 });
  const [one, half] = await Promise.all(
    [1, 0.5].map((temperature) => {
      const body = { ...scoreBody(request), sampling_params: { max_new_tokens: 0, temperature } };
      return server.generate(body, (answer) => readScores(answer, request, vocabulary));
    }),
  );
  return compare([one as Scores[]], [half as Scores[]]);
}

async function checkNamed({ server, vocabulary, text }: CheckContext): Promise<CheckResult> {
  const tokens = text(16);
  const [position] = await scoresOf(server, vocabulary, { tokens, at: 15 });
  const top = (position as Scores).top;
  const named = [...top.ids.subarray(0, 8)];
  const [again] = await scoresOf(server, vocabulary, { tokens, at: 15, named });
  const difference = Math.max(
    ...named.map((id, i) => {
      const values = again?.named;
      const value = values?.logProbabilities[values.ids.indexOf(id)] as number;
      return Math.abs(value - (top.logProbabilities[i] as number));
    }),
  );
  return { ok: difference === 0, found: `largest difference ${difference}` };
}

async function checkChunks({ server, vocabulary, text }: CheckContext): Promise<CheckResult> {
  const tokens = text(96);
  const whole = await scoresOf(server, vocabulary, { tokens, at: 0 });
  const [expected, actual]: [Scores[][], Scores[][]] = [[], []];
  for (const size of [1, 2, 5, 9]) {
    for (let at = 48; at + size <= tokens.length; at += size) {
      expected.push(whole.slice(at, at + size));
      actual.push(await scoresOf(server, vocabulary, { tokens: tokens.slice(0, at + size), at }));
    }
  }
  return compare(expected, actual);
}

async function checkBatches({ server, vocabulary, text }: CheckContext): Promise<CheckResult> {
  const requests = Array.from({ length: 12 }, (_, i) => ({ tokens: text(40 + 7 * i), at: 30 + 7 * i }));
  const alone: Scores[][] = [];
  for (const request of requests) alone.push(await scoresOf(server, vocabulary, request));
  const together: Scores[][] = [];
  for (let repetition = 0; repetition < 3; repetition++) {
    const answers = requests.map((request) => scoresOf(server, vocabulary, request));
    together.push(...(await Promise.all(answers)));
  }
  return compare([...alone, ...alone, ...alone], together);
}

async function checkSpeed({ server, vocabulary, text }: CheckContext): Promise<CheckResult> {
  const tokens = text(PREFIX);
  await server.generate(prefillBody(tokens), (answer) => readCachedTokens(answer, PREFIX));
  const found: string[] = [];
  for (const top of SIZES) {
    const times: number[] = [];
    for (let run = 0; run < 20; run++) {
      const request = { tokens: [...tokens, ...text(EXTEND)], at: PREFIX, top };
      const started = performance.now();
      await scoresOf(server, vocabulary, request);
      times.push(performance.now() - started);
    }
    times.sort((a, b) => a - b);
    found.push(`${top} candidates: median ${times[10]?.toFixed(1)} ms, slowest ${times[19]?.toFixed(1)} ms`);
  }
  return { ok: true, found: found.join('; ') };
}

function requestOf(request: Partial<ScoreRequest> & Pick<ScoreRequest, 'tokens' | 'at'>): ScoreRequest {
  return { probe: 0, top: FIRST, named: [], ...request };
}

function scoresOf(server: SglangServer, vocabulary: number, parts: Parameters<typeof requestOf>[0]): Promise<Scores[]> {
  const request = requestOf({ ...parts, top: Math.min(parts.top ?? FIRST, vocabulary) });
  return server.generate(scoreBody(request), (answer) => readScores(answer, request, vocabulary));
}

/** Compares the log-probabilities of the most probable tokens bit by bit. Equally probable tokens may change places. */
function compare(expected: readonly Scores[][], actual: readonly Scores[][]): CheckResult {
  let [rows, different, largest] = [0, 0, 0];
  for (const [i, scores] of expected.entries()) {
    for (const [k, { top }] of scores.entries()) {
      const other = actual[i]?.[k]?.top.logProbabilities ?? [];
      const distances = Array.from(top.logProbabilities, (value, j) => Math.abs(value - (other[j] ?? Number.NaN)));
      const distance = Math.max(...distances);
      rows++;
      if (distance === 0) continue;
      different++;
      largest = Math.max(largest, distance);
    }
  }
  const ok = different === 0;
  return {
    ok,
    found: ok ? `${rows} positions have equal bits` : `${different} of ${rows} positions differ, by up to ${largest}`,
  };
}

function since(started: number): string {
  return `${(performance.now() - started).toFixed(0)} ms`;
}

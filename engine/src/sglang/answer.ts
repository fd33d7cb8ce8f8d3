import { PtpError } from '@ptp/protocol/errors';
import { parseFields } from '@ptp/protocol/validation';
import { z } from 'zod';
import type { ScoreRequest } from './score-request.ts';

/** Log-probabilities of tokens that may follow one token. */
export interface Scores {
  /** Most probable tokens, in descending order. */
  readonly top: TokenScores;
  /** Tokens requested by name, and the token that follows in the request. Some may be among the most probable ones. */
  readonly named: TokenScores;
}

export interface TokenScores {
  /** [n] distinct token ids. */
  readonly ids: Int32Array;
  /** [n] natural logarithms of their probabilities. */
  readonly logProbabilities: Float32Array;
}

/** Tolerance for differences between a server's own numbers, and for sums of its probabilities. */
const TOLERANCE = 1e-3;

const count = z.int('an integer >= 0').nonnegative('an integer >= 0');
const list = z.array(z.unknown(), 'an array');
const readSchema = z.object({ prompt_tokens: count, cached_tokens: count }, 'an object');
const scoresSchema = readSchema.extend({
  input_token_logprobs: list,
  input_top_logprobs: list,
  input_token_ids_logprobs: list,
});
const finishSchema = z.looseObject({
  meta_info: z.looseObject({ finish_reason: z.looseObject({ type: z.string(), message: z.unknown() }).nullish() }),
});

/**
 * Reads the answer to a request without scores.
 *
 * @param sent number of tokens in the request
 * @returns number of tokens whose keys and values the server had in its cache
 * @throws PtpError `unavailable` if the server aborted the request, `internal` naming the first wrong field
 */
export function readCachedTokens(answer: unknown, sent: number): number {
  return checkCounts(parseAnswer(readSchema, answer), sent);
}

/**
 * Reads and checks the answer to a request with scores. An answer must never become a token unless it is complete and
 * consistent: its lengths, token ids, order and sums must fit the request and each other.
 *
 * @returns [T] scores of the successors of tokens[at] to tokens[at + T - 1]
 * @throws PtpError `unavailable` if the server aborted the request, `internal` naming the first wrong field
 */
export function readScores(answer: unknown, request: ScoreRequest, vocabulary: number): Scores[] {
  const { tokens, at, probe, top, named } = request;
  const meta = parseAnswer(scoresSchema, answer);
  checkCounts(meta, tokens.length + 1);
  const length = tokens.length - at;
  for (const field of ['input_token_logprobs', 'input_top_logprobs', 'input_token_ids_logprobs'] as const) {
    require(meta[field].length === length + 1, field, `have ${length + 1} entries`, meta[field].length);
  }
  return Array.from({ length }, (_, k) => {
    // The first entry belongs to the token at `at` itself, which has no log-probability.
    const entry = `[${k + 1}]`;
    const follower = tokens[at + k + 1] ?? probe;
    const best = readEntries(meta.input_top_logprobs[k + 1], `input_top_logprobs${entry}`, top, vocabulary);
    checkTop(best, `input_top_logprobs${entry}`, vocabulary);
    const own = readEntries([meta.input_token_logprobs[k + 1]], `input_token_logprobs${entry}`, 1, vocabulary);
    checkFollower(own, follower, `input_token_logprobs${entry}`, vocabulary);
    const field = `input_token_ids_logprobs${entry}`;
    const names = readEntries(meta.input_token_ids_logprobs[k + 1], field, Math.max(1, named.length), vocabulary);
    for (const [i, id] of named.entries())
      require(names.ids[i] === id, `${field}[${i}]`, `be of token ${id}`, names.ids[i]);
    const scores = { top: best, named: joined(follower, own, names, named.length) };
    checkConsistency(scores, entry);
    return scores;
  });
}

/** Returns `meta_info` of an answer. Fields that the schema does not list are ignored. */
function parseAnswer<Meta>(schema: z.ZodType<Meta>, answer: unknown): Meta {
  const finish = finishSchema.safeParse(answer).data?.meta_info.finish_reason;
  if (finish?.type === 'abort') {
    throw new PtpError('unavailable', `the server aborted the request: ${String(finish.message).slice(0, 200)}`);
  }
  try {
    const outer = parseFields(z.object({ meta_info: z.looseObject({}, 'an object') }, 'an object'), answer);
    return parseFields(schema, outer.meta_info, 'meta_info');
  } catch (cause) {
    throw new PtpError('internal', (cause as Error).message, { cause });
  }
}

function checkCounts(meta: { prompt_tokens: number; cached_tokens: number }, sent: number): number {
  require(meta.prompt_tokens === sent, 'prompt_tokens', `be ${sent}`, meta.prompt_tokens);
  require(meta.cached_tokens <= sent, 'cached_tokens', `be at most ${sent}`, meta.cached_tokens);
  return meta.cached_tokens;
}

/** Reads a list of [log-probability, token id, text]. */
function readEntries(value: unknown, field: string, expected: number, vocabulary: number): TokenScores {
  if (!Array.isArray(value)) return wrong(field, 'be an array', value);
  require(value.length === expected, field, `have ${expected} entries`, value.length);
  const ids = new Int32Array(expected);
  const logProbabilities = new Float32Array(expected);
  for (let i = 0; i < expected; i++) {
    const logProbability = value[i]?.[0];
    const id = value[i]?.[1];
    if (!(typeof logProbability === 'number' && Number.isFinite(logProbability) && logProbability <= TOLERANCE)) {
      wrong(`${field}[${i}]`, 'start with a log-probability, a finite number <= 0', logProbability);
    }
    if (!(Number.isInteger(id) && id >= 0 && id < vocabulary)) {
      wrong(`${field}[${i}]`, `have a token id in [0, ${vocabulary - 1}]`, id);
    }
    ids[i] = id;
    logProbabilities[i] = logProbability;
  }
  return { ids, logProbabilities };
}

/** Checks the most probable tokens: distinct, in descending order, with probabilities that sum to at most 1. */
function checkTop({ ids, logProbabilities }: TokenScores, field: string, vocabulary: number): void {
  let sum = 0;
  for (let i = 0; i < ids.length; i++) {
    const value = logProbabilities[i] as number;
    if (i > 0 && value > (logProbabilities[i - 1] as number)) wrong(`${field}[${i}]`, 'be in descending order', value);
    sum += Math.exp(value);
  }
  const repeated = ids.toSorted().find((id, i, sorted) => i > 0 && id === sorted[i - 1]);
  require(repeated === undefined, field, 'have distinct token ids', repeated);
  require(sum <= 1 + TOLERANCE, field, 'have probabilities with a sum of at most 1', sum);
  if (ids.length >= vocabulary) require(sum >= 1 - TOLERANCE, field, 'have probabilities with a sum of 1', sum);
}

/** Checks that a position has the token of the request. SGLang replaces the last id of the vocabulary by 0 here. */
function checkFollower({ ids }: TokenScores, follower: number, field: string, vocabulary: number): void {
  const shown = follower === vocabulary - 1 && ids[0] === 0 ? follower : ids[0];
  require(shown === follower, field, `be of token ${follower}`, ids[0]);
}

/**
 * Checks that a token has the same log-probability in both lists, and that tokens outside `top` are not more probable
 * than those in it. Lists of different positions or distributions rarely pass.
 */
function checkConsistency({ top, named }: Scores, entry: string): void {
  const floor = top.logProbabilities.at(-1) as number;
  for (const [i, id] of named.ids.entries()) {
    const index = top.ids.indexOf(id);
    const value = named.logProbabilities[i] as number;
    const [low, high] = index < 0 ? [Number.NEGATIVE_INFINITY, floor] : Array(2).fill(top.logProbabilities[index]);
    const fits = value >= low - TOLERANCE && value <= high + TOLERANCE;
    require(fits, `the log-probability of token ${id} at ${entry}`, `agree with input_top_logprobs${entry}`, value);
  }
}

/** Returns the follower and the first `count` named tokens as one list. */
function joined(follower: number, own: TokenScores, names: TokenScores, count: number): TokenScores {
  const kept = names.ids.subarray(0, count);
  if (kept.includes(follower)) return { ids: kept, logProbabilities: names.logProbabilities.subarray(0, count) };
  const logProbabilities = [...own.logProbabilities, ...names.logProbabilities.subarray(0, count)];
  return { ids: Int32Array.of(follower, ...kept), logProbabilities: Float32Array.from(logProbabilities) };
}

function require(valid: boolean, field: string, requirement: string, value: unknown): void {
  if (!valid) wrong(field, requirement, value);
}

function wrong(field: string, requirement: string, value: unknown): never {
  const shown = JSON.stringify(value)?.slice(0, 80) ?? 'nothing';
  throw new PtpError('internal', `\`meta_info.${field}\` must ${requirement}, got ${shown}`);
}

import type { FakeSglangOptions } from './fake-sglang.ts';

/** The fields of a request to /generate that the fake uses. */
export interface ScoreBody {
  readonly input_ids: readonly number[];
  readonly sampling_params?: { readonly max_new_tokens?: number; readonly temperature?: number };
  readonly return_logprob?: boolean;
  readonly logprob_start_len?: number;
  readonly top_logprobs_num?: number;
  readonly token_ids_logprob?: readonly number[];
}

/** Log-probability, token id and text. */
export type Entry = [number | null, number, null];

/** The fields of an answer's `meta_info` that matter here. Tests alter them. */
export interface MetaInfo {
  finish_reason: { type: string; length?: number; message?: string };
  prompt_tokens: number;
  completion_tokens: number;
  cached_tokens: number;
  input_token_logprobs: Entry[];
  input_top_logprobs: (Entry[] | null)[];
  input_token_ids_logprobs: (Entry[] | null)[];
  output_token_logprobs: Entry[];
  output_top_logprobs: Entry[][];
}

/**
 * Returns `meta_info` of an answer.
 *
 * @param rows logits after each token from `logprob_start_len` on, without those after the last one if the request
 *   generates nothing
 * @param cached number of reused tokens
 */
export function metaInfo(
  body: ScoreBody,
  rows: readonly Float32Array[],
  cached: number,
  { vocabulary, varies, scales }: FakeSglangOptions,
): MetaInfo {
  const { input_ids: ids, sampling_params: { max_new_tokens: length = 128, temperature = 1 } = {} } = body;
  const { top_logprobs_num: top = 0, token_ids_logprob: named = [], logprob_start_len: start = -1 } = body;
  // The numbers of a server that is not batch-invariant differ a little with the number of tokens in a run.
  const noise = varies ? 1 + (ids.length - cached) * 1e-4 : 1;
  const scale = noise / (scales && temperature > 0 ? temperature : 1);
  const scores = rows.map((row) => logSoftmax(row.map((logit) => logit * scale)));
  const entries = (row: Float32Array, chosen: Iterable<number>) => Array.from(chosen, (id) => entry(row, id));
  const best = (row: Float32Array) => entries(row, ranked(row).slice(0, top));
  const meta: MetaInfo = {
    finish_reason: { type: 'length', length },
    prompt_tokens: ids.length,
    completion_tokens: Math.min(1, length),
    cached_tokens: cached,
    input_token_logprobs: [],
    input_top_logprobs: [],
    input_token_ids_logprobs: [],
    output_token_logprobs: [],
    output_top_logprobs: [],
  };
  if (!generatesNothing(body)) {
    const last = scores.pop() as Float32Array;
    meta.output_token_logprobs = entries(last, ranked(last).slice(0, 1));
    meta.output_top_logprobs = [best(last)];
  }
  // A request that generates nothing and scores only the last position has no scores of the prompt.
  if (!body.return_logprob || start < 0 || (length === 0 && start === ids.length - 1)) return meta;
  const shown = (id: number) => (id < vocabulary - 1 ? id : 0);
  meta.input_token_logprobs = [
    [null, shown(ids[start] as number), null],
    ...scores.map((row, k): Entry => {
      const id = ids[start + k + 1] as number;
      return [row[id] as number, shown(id), null];
    }),
  ];
  meta.input_top_logprobs = [null, ...scores.map(best)];
  meta.input_token_ids_logprobs = [null, ...scores.map((row) => entries(row, named))];
  return meta;
}

export function generatesNothing({ sampling_params: parameters }: ScoreBody): boolean {
  return parameters?.max_new_tokens === 0;
}

function entry(row: Float32Array, id: number): Entry {
  const value = row[id] as number;
  // SGLang's JSON library writes numbers that are not finite as null.
  return [Number.isFinite(value) ? value : null, id, null];
}

/** Returns all ids by descending log-probability. A typed array sorts numbers faster than a comparison function. */
function ranked(row: Float32Array): number[] {
  // The bits of negative floats are in descending order of the floats.
  const bits = new Uint32Array(row.buffer, row.byteOffset, row.length);
  const size = row.length;
  return Array.from(Float64Array.from(bits, (value, id) => value * size + id).sort(), (key) => key % size);
}

function logSoftmax(logits: Float32Array): Float32Array {
  const largest = logits.reduce((most, logit) => Math.max(most, logit), Number.NEGATIVE_INFINITY);
  const total = largest + Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit - largest), 0));
  return logits.map((logit) => logit - total);
}

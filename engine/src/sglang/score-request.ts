/** Request for the log-probabilities of tokens that may follow each of a sequence's last tokens. */
export interface ScoreRequest {
  /** Tokens of the sequence, at least one. */
  readonly tokens: readonly number[];
  /** Index of the first token whose successors are scored. */
  readonly at: number;
  /**
   * Token that is sent after the last one. SGLang computes the log-probabilities inside a prompt in one way, and those
   * of the next token in another, after its sampler. With one token more, all positions are inside the prompt, so their
   * bits do not depend on the length of a draft. The server returns this token's log-probability as well.
   */
  readonly probe: number;
  /** Number of most probable tokens to return for each position, at least 1. */
  readonly top: number;
  /** Other tokens to return for each position. */
  readonly named: readonly number[];
}

/** Parameters to read a prompt and generate nothing. Temperature 1 leaves log-probabilities as they are. */
const samplingParams = { max_new_tokens: 0, temperature: 1 };
/**
 * Named tokens of a request that needs none. In SGLang 0.5.14 to 0.5.17, a batch in which only some requests name tokens
 * ends the server (sgl-project/sglang#34719), so all requests have the same fields.
 */
const NO_NAMES = [0];

/** Returns the body of POST /generate for a request. */
export function scoreBody({ tokens, at, probe, top, named }: ScoreRequest) {
  return {
    input_ids: [...tokens, probe],
    sampling_params: samplingParams,
    return_logprob: true,
    logprob_start_len: at,
    top_logprobs_num: top,
    token_ids_logprob: named.length > 0 ? named : NO_NAMES,
  };
}

/** Returns the body of POST /generate that reads `tokens` into the server's radix cache. */
export function prefillBody(tokens: readonly number[]) {
  const end = tokens.length - 1;
  return scoreBody({ tokens: tokens.slice(0, end), at: end, probe: tokens[end] as number, top: 1, named: [] });
}

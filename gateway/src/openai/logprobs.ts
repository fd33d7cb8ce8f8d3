import type { GenerationStep, PromptScores, TopTokens } from '../decode/types.ts';
import type { Tokenizer } from '../text/tokenizer.ts';

/** A token, or an alternative to it, with its natural-log probability under the unmodified model distribution. */
export interface TokenEntry {
  readonly token: string;
  readonly bytes: readonly number[];
  readonly logprob: number;
}

/** A token of an answer with its alternatives, most probable first. */
export interface TokenLogprob extends Omit<TokenEntry, 'logprob'> {
  /** null for the first token of a prompt, which has no context. */
  readonly logprob: number | null;
  /** Characters of the answer before it, with each token decoded separately. */
  readonly offset: number;
  readonly top: readonly TokenEntry[];
}

/** OpenAI's value for probabilities too small to report. */
const LOGPROB_FLOOR = -9999;

/** Reports the tokens of one answer, step by step. */
export class Logprobs {
  readonly #tokenizer: Tokenizer;
  #offset = 0;

  constructor(tokenizer: Tokenizer) {
    this.#tokenizer = tokenizer;
  }

  /** @param count tokens of the step that belong to the answer */
  of({ tokens, logProbabilities, tops }: GenerationStep, count: number): TokenLogprob[] {
    return tokens.slice(0, count).map((id, i) => this.#report(id, logProbabilities[i] as number, tops?.[i]));
  }

  /** @param tokens the prompt, with or without its first token */
  ofPrompt(tokens: readonly number[], scores: PromptScores | undefined): TokenLogprob[] {
    const { logProbabilities = [], tops = [] } = scores ?? {};
    const unknown = tokens.length - logProbabilities.length;
    return tokens.map((id, i) => this.#report(id, logProbabilities[i - unknown] ?? null, tops[i - unknown]));
  }

  #report(id: number, logprob: number | null, tops: TopTokens | undefined): TokenLogprob {
    const entry = { ...this.#entry(id, logprob ?? 0), ...(logprob === null && { logprob }) };
    const { ids = [], logProbabilities: logs = [] } = tops ?? {};
    const offset = this.#offset;
    this.#offset += [...entry.token].length;
    return { ...entry, offset, top: ids.map((other, n) => this.#entry(other, logs[n] as number)) };
  }

  #entry(id: number, logprob: number): TokenEntry {
    const bytes = this.#tokenizer.bytes(id);
    // A special token has no bytes, only a name.
    const token = bytes.length > 0 ? new TextDecoder().decode(bytes) : this.#tokenizer.name(id);
    return { token, bytes: [...bytes], logprob: Math.max(LOGPROB_FLOOR, logprob) };
  }
}

/** Returns tokens as chat and responses list them. */
export function logprobEntries(tokens: readonly TokenLogprob[]): object[] {
  return tokens.map(({ offset: _, top, ...entry }) => ({ ...entry, top_logprobs: top }));
}

/** `logprobs` of the chat API. */
export function chatLogprobs(tokens: readonly TokenLogprob[] | undefined): object | null {
  return tokens ? { content: logprobEntries(tokens), refusal: null } : null;
}

/** `logprobs` of the completions API, whose alternatives include the chosen token. */
export function completionLogprobs(tokens: readonly TokenLogprob[] | undefined): object | null {
  if (!tokens) return null;
  return {
    tokens: tokens.map(({ token }) => token),
    token_logprobs: tokens.map(({ logprob }) => logprob),
    top_logprobs: tokens.map(({ top, token, logprob }) =>
      logprob === null
        ? null
        : Object.fromEntries(
            [...top, ...(top.length > 0 ? [{ token, logprob }] : [])].map((each) => [each.token, each.logprob]),
          ),
    ),
    text_offset: tokens.map(({ offset }) => offset),
  };
}

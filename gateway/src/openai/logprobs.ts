import type { GenerationStep, PromptScores, TopTokens } from '../decode/types.ts';
import type { Tokenizer } from '../text/tokenizer.ts';

/** A token of an answer, or one that stood beside it, with the natural log of its probability under the unshaped model. */
export interface TokenChance {
  readonly token: string;
  readonly bytes: readonly number[];
  readonly logprob: number;
}

/** A token of an answer with its alternatives, the most probable first. */
export interface TokenLogprob extends Omit<TokenChance, 'logprob'> {
  /** null for a prompt's first token, which nothing stands before. */
  readonly logprob: number | null;
  /** Characters of the answer before it, each token decoded by itself. */
  readonly offset: number;
  readonly top: readonly TokenChance[];
}

/** What OpenAI's API says for a probability too small to tell. */
const LEAST = -9999;

/** The tokens of an answer as they arrive. */
export class Logprobs {
  readonly #tokenizer: Tokenizer;
  #offset = 0;

  constructor(tokenizer: Tokenizer) {
    this.#tokenizer = tokenizer;
  }

  /** @param count how many of the step's tokens are part of the answer */
  of({ tokens, logProbabilities, tops }: GenerationStep, count: number): TokenLogprob[] {
    return tokens.slice(0, count).map((id, i) => this.#told(id, logProbabilities[i] as number, tops?.[i]));
  }

  /** @param tokens the prompt, or all of it but its first token */
  ofPrompt(tokens: readonly number[], scores: PromptScores | undefined): TokenLogprob[] {
    const { logProbabilities = [], tops = [] } = scores ?? {};
    const unknown = tokens.length - logProbabilities.length;
    return tokens.map((id, i) => this.#told(id, logProbabilities[i - unknown] ?? null, tops[i - unknown]));
  }

  #told(id: number, logprob: number | null, tops: TopTokens | undefined): TokenLogprob {
    const chance = { ...this.#chance(id, logprob ?? 0), ...(logprob === null && { logprob }) };
    const { ids = [], logProbabilities: logs = [] } = tops ?? {};
    const offset = this.#offset;
    this.#offset += [...chance.token].length;
    return { ...chance, offset, top: ids.map((other, n) => this.#chance(other, logs[n] as number)) };
  }

  #chance(id: number, logprob: number): TokenChance {
    const bytes = this.#tokenizer.bytes(id);
    // a special token has no bytes in the text, but a name
    const token = bytes.length > 0 ? new TextDecoder().decode(bytes) : this.#tokenizer.name(id);
    return { token, bytes: [...bytes], logprob: Math.max(LEAST, logprob) };
  }
}

/** As the chat API spells it. */
export function chatLogprobs(tokens: readonly TokenLogprob[] | undefined): object | null {
  return tokens
    ? { content: tokens.map(({ offset, top, ...chance }) => ({ ...chance, top_logprobs: top })), refusal: null }
    : null;
}

/** As the completions API spells it; the alternatives hold the chosen token too, as there. */
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

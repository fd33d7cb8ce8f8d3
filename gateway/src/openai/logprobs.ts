import type { GenerationStep, PromptScores, TopTokens } from '../decode/types.ts';
import { LeadingBytes } from '../text/token-healing.ts';
import type { Tokenizer } from '../text/tokenizer.ts';

/** Token with the natural logarithm of its probability under the model's own distribution. */
export interface TokenEntry {
  readonly token: string;
  readonly bytes: readonly number[];
  readonly logprob: number;
}

/** Token of an answer with its alternatives, the most probable first. */
export interface TokenLogprob extends Omit<TokenEntry, 'logprob'> {
  /** Log-probability. Null for the first token of a prompt, which has no context. */
  readonly logprob: number | null;
  /** Number of whole characters of the answer before this token. */
  readonly offset: number;
  readonly top: readonly TokenEntry[];
}

/** Minimum log-probability to report, as in OpenAI's API. */
const LOGPROB_FLOOR = -9999;

/** Describes the tokens of one answer, step by step. */
export class Logprobs {
  readonly #tokenizer: Tokenizer;
  /** Decodes the answer, to count its characters. */
  readonly #decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  readonly #healed: LeadingBytes;
  #offset = 0;

  /** @param healedBytes number of bytes of the first tokens that belong to the prompt, not to the answer */
  constructor(tokenizer: Tokenizer, healedBytes = 0) {
    this.#tokenizer = tokenizer;
    this.#healed = new LeadingBytes(healedBytes);
  }

  /** @param count number of tokens of the step that belong to the answer */
  of({ tokens, logProbabilities, tops }: GenerationStep, count: number): TokenLogprob[] {
    return tokens.slice(0, count).map((id, i) => this.#describe(id, logProbabilities[i] as number, tops?.[i]));
  }

  /** @param tokens tokens of the prompt, with or without the beginning-of-text token */
  ofPrompt(tokens: readonly number[], scores: PromptScores | undefined): TokenLogprob[] {
    const { logProbabilities = [], tops = [] } = scores ?? {};
    const unknown = tokens.length - logProbabilities.length;
    return tokens.map((id, i) => this.#describe(id, logProbabilities[i - unknown] ?? null, tops[i - unknown]));
  }

  #describe(id: number, logprob: number | null, tops: TopTokens | undefined): TokenLogprob {
    const entry = { ...this.#entry(id, logprob ?? 0), ...(logprob === null && { logprob }) };
    const { ids = [], logProbabilities: logs = [] } = tops ?? {};
    const offset = this.#offset;
    const shown = this.#healed.drop(Uint8Array.from(entry.bytes));
    this.#offset += [...this.#decoder.decode(shown, { stream: true })].length;
    return { ...entry, offset, top: ids.map((other, n) => this.#entry(other, logs[n] as number)) };
  }

  #entry(id: number, logprob: number): TokenEntry {
    const bytes = this.#tokenizer.bytes(id);
    // A special token has no bytes, only a name.
    const token = bytes.length > 0 ? new TextDecoder().decode(bytes) : this.#tokenizer.name(id);
    return { token, bytes: [...bytes], logprob: Math.max(LOGPROB_FLOOR, logprob) };
  }
}

/** Returns tokens in the form in which chat and responses list them. */
export function logprobEntries(tokens: readonly TokenLogprob[]): object[] {
  return tokens.map(({ offset: _, top, ...entry }) => ({ ...entry, top_logprobs: top }));
}

/** Returns `logprobs` of the chat API. */
export function chatLogprobs(tokens: readonly TokenLogprob[] | undefined): object | null {
  return tokens ? { content: logprobEntries(tokens), refusal: null } : null;
}

/** Returns the text of a token or, for a token that is not whole characters, its bytes as OpenAI writes them. */
function textOrBytes({ token, bytes }: Omit<TokenEntry, 'logprob'>): string {
  if (!token.includes('\ufffd')) return token;
  return `bytes:${bytes.map((byte) => `\\x${byte.toString(16).padStart(2, '0')}`).join('')}`;
}

/** Returns `logprobs` of the completions API, where the alternatives include the chosen token. */
export function completionLogprobs(tokens: readonly TokenLogprob[] | undefined): object | null {
  if (!tokens) return null;
  return {
    tokens: tokens.map(textOrBytes),
    token_logprobs: tokens.map(({ logprob }) => logprob),
    top_logprobs: tokens.map(({ top, ...chosen }) =>
      chosen.logprob === null
        ? null
        : Object.fromEntries(
            [...top, ...(top.length > 0 ? [chosen] : [])].map((each) => [textOrBytes(each), each.logprob]),
          ),
    ),
    text_offset: tokens.map(({ offset }) => offset),
  };
}

import { type Block, EMPTY } from '../types.ts';

/** Lengths of the matches that are looked up, the longest first. */
const SIZES = [3, 2] as const;
/** Maximum length of a match that is measured. */
const LONGEST = 10;

/**
 * Prompt lookup (Saxena 2023): finds the most recent earlier occurrence of the text's last tokens and proposes what
 * followed it. This costs almost nothing, and works for repetitive texts: code, quotations, greedy answers of small
 * models.
 */
export class PromptLookupProposer {
  readonly #tokens: number[] = [];
  /** Maps from sequences of tokens to the position after their last occurrence, one map for each size. */
  readonly #places: readonly Map<number, number>[] = SIZES.map(() => new Map());
  readonly #vocabulary: number;

  constructor(prompt: readonly number[], vocabulary: number) {
    this.#vocabulary = vocabulary;
    this.push(prompt);
  }

  /** Appends committed tokens. */
  push(tokens: readonly number[]): void {
    for (const token of tokens) {
      // A sequence is indexed only once a token follows it, so that the end of the text never matches itself.
      for (const [i, size] of SIZES.entries()) {
        if (this.#tokens.length >= size) this.#places[i]?.set(this.#key(this.#tokens, size), this.#tokens.length);
      }
      this.#tokens.push(token);
    }
  }

  /**
   * Proposes at most `length` tokens, assuming that `after` is committed first. The confidence is the length of the
   * preceding match divided by 10. `AcceptanceByConfidence` maps the confidence to a probability.
   */
  propose(length: number, after: readonly number[] = []): Block {
    const text = after.length > 0 ? [...this.#tokens, ...after] : this.#tokens;
    for (const [i, size] of SIZES.entries()) {
      const place = text.length >= size ? this.#places[i]?.get(this.#key(text, size)) : undefined;
      if (place === undefined) continue;
      const alike = alikeBefore(text, place);
      const tokens = text.slice(place, place + length);
      const confidences = tokens.map((_, k) => (Math.min(alike + k, LONGEST) - 0.5) / LONGEST);
      return { source: 'prompt lookup', tokens, confidences };
    }
    return EMPTY;
  }

  /**
   * Encodes the last `size` tokens as one number. The number is exact up to 2^53, which is enough for vocabularies of
   * up to 2^17 tokens.
   */
  #key(text: readonly number[], size: number): number {
    return text.slice(-size).reduce((key, token) => key * this.#vocabulary + token, 0);
  }
}

/** Returns the number of tokens before `place` that are equal to the last tokens of the text. */
function alikeBefore(text: readonly number[], place: number): number {
  let count = 0;
  while (count < LONGEST && count < place && text[place - 1 - count] === text[text.length - 1 - count]) count++;
  return count;
}

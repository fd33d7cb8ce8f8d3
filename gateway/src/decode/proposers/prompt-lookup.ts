import { type Block, EMPTY } from '../block.ts';

/** Tokens that have to be alike for a repetition to be noticed, the more the better. */
const SIZES = [3, 2] as const;
/** Repetitions are measured up to so many tokens. */
const LONGEST = 10;

/**
 * Prompt lookup (Saxena 2023): proposes what followed when the text's last tokens stood in it before, latest place first. It costs
 * nothing, and is right where texts repeat themselves: code, quotations, greedy answers of small models.
 */
export class PromptLookupProposer {
  readonly #tokens: number[] = [];
  /** By size: where the text went on after each run of so many tokens, latest place. */
  readonly #places: readonly Map<number, number>[] = SIZES.map(() => new Map());
  readonly #vocabulary: number;

  constructor(prompt: readonly number[], vocabulary: number) {
    this.#vocabulary = vocabulary;
    this.push(prompt);
  }

  /** Tokens that the text goes on with. */
  push(tokens: readonly number[]): void {
    for (const token of tokens) {
      // a run is noted when it has a continuation, so that the text's end never finds itself
      for (const [i, size] of SIZES.entries()) {
        if (this.#tokens.length >= size) this.#places[i]?.set(this.#key(this.#tokens, size), this.#tokens.length);
      }
      this.#tokens.push(token);
    }
  }

  /**
   * At most `length` tokens, should the text go on with those of `after` first. Their confidences say how many tokens before them are
   * alike, in tenths: see `Calibration`.
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

  /** A text's last `size` tokens as one number, exact below 2^53: for vocabularies of up to 2^17 tokens. */
  #key(text: readonly number[], size: number): number {
    return text.slice(-size).reduce((key, token) => key * this.#vocabulary + token, 0);
  }
}

/** How many tokens before `place` are those before the text's end. */
function alikeBefore(text: readonly number[], place: number): number {
  let count = 0;
  while (count < LONGEST && count < place && text[place - 1 - count] === text[text.length - 1 - count]) count++;
  return count;
}

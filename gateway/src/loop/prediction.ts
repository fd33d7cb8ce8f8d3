import { type Block, EMPTY } from './controller.ts';

/** Tokens of the text that have to stand in the prediction for the two to be taken as in step again. */
const SIZE = 3;
/** Tokens in step are counted up to so many. */
const LONGEST = 10;

/**
 * The client's own guess of the answer (OpenAI's Predicted Outputs), as a source of blocks: an edited file is mostly the file. Proposes what follows in
 * the guess, from its beginning on; where the text goes another way, from the next place where the two meet again.
 */
export class Prediction {
  readonly #tokens: readonly number[];
  /** Where the guess goes on after each run of SIZE tokens, ascending. */
  readonly #places = new Map<string, number[]>();
  #last: number[] = [];
  /** Where the guess goes on after the text so far, and how many tokens have been in step; undefined out of step. */
  #next: number | undefined = 0;
  #inStep = SIZE;
  /** Up to where the text has followed the guess: it is met again further on rather than before. */
  #reached = 0;

  constructor(tokens: readonly number[]) {
    this.#tokens = tokens;
    for (let end = SIZE; end <= tokens.length; end++) {
      const key = tokens.slice(end - SIZE, end).join();
      const places = this.#places.get(key);
      if (places) places.push(end);
      else this.#places.set(key, [end]);
    }
  }

  /** Tokens that the text goes on with. */
  push(tokens: readonly number[]): void {
    for (const token of tokens) {
      this.#last = [...this.#last, token].slice(-SIZE);
      if (this.#next !== undefined && this.#tokens[this.#next] === token) {
        this.#next++;
        this.#inStep++;
      } else {
        this.#next = this.#meeting();
        this.#inStep = SIZE;
      }
      this.#reached = this.#next ?? this.#reached;
    }
  }

  /** At most `length` tokens. Their confidences say how many tokens have been in step, in tenths: see `Calibration`. */
  propose(length: number): Block {
    if (this.#next === undefined) return EMPTY;
    const tokens = this.#tokens.slice(this.#next, this.#next + length);
    if (tokens.length === 0) return EMPTY;
    const confidences = tokens.map((_, k) => (Math.min(this.#inStep + k, LONGEST) - 0.5) / LONGEST);
    return { source: 'prediction', tokens, confidences };
  }

  #meeting(): number | undefined {
    const places = this.#last.length === SIZE ? this.#places.get(this.#last.join()) : undefined;
    return places?.find((place) => place >= this.#reached) ?? places?.at(-1);
  }
}

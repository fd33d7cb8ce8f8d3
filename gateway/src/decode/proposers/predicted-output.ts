import { type Block, EMPTY } from '../block.ts';

/** Tokens of the text that have to stand in the prediction for the two to be taken as in step again. */
const SIZE = 3;
/** Tokens in step are counted up to so many. */
const LONGEST = 10;

/**
 * The client's own guess of the answer (OpenAI's Predicted Outputs), as a source of blocks: an edited file is mostly the file. Proposes what follows in
 * the guess, from its beginning on; where the text goes another way, from the next place where the two meet again.
 */
export class PredictedOutputProposer {
  readonly #tokens: readonly number[];
  /** Where the guess goes on after each run of SIZE tokens, ascending. */
  readonly #places = new Map<string, number[]>();
  #state: State = { last: [], next: 0, inStep: SIZE, reached: 0 };

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
    this.#state = this.#after(tokens);
  }

  /**
   * At most `length` tokens, should the text go on with those of `after` first. Their confidences say how many tokens have been in step,
   * in tenths: see `Calibration`.
   */
  propose(length: number, after: readonly number[] = []): Block {
    const { next, inStep } = this.#after(after);
    if (next === undefined) return EMPTY;
    const tokens = this.#tokens.slice(next, next + length);
    if (tokens.length === 0) return EMPTY;
    const confidences = tokens.map((_, k) => (Math.min(inStep + k, LONGEST) - 0.5) / LONGEST);
    return { source: 'prediction', tokens, confidences };
  }

  #after(tokens: readonly number[]): State {
    return tokens.reduce<State>((state, token) => {
      const last = [...state.last, token].slice(-SIZE);
      const inStep = state.next !== undefined && this.#tokens[state.next] === token;
      const next = inStep ? (state.next as number) + 1 : this.#meeting(last, state.reached);
      return { last, next, inStep: inStep ? state.inStep + 1 : SIZE, reached: next ?? state.reached };
    }, this.#state);
  }

  #meeting(last: readonly number[], reached: number): number | undefined {
    const places = last.length === SIZE ? this.#places.get(last.join()) : undefined;
    return places?.find((place) => place >= reached) ?? places?.at(-1);
  }
}

/** Where a text stands beside its prediction. */
interface State {
  readonly last: readonly number[];
  /** Where the guess goes on after the text so far, and how many tokens have been in step; undefined out of step. */
  readonly next: number | undefined;
  readonly inStep: number;
  /** Up to where the text has followed the guess: it is met again further on rather than before. */
  readonly reached: number;
}

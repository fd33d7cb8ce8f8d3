import { type Block, EMPTY } from '../types.ts';

/** Number of consecutive equal tokens after which the text and the guess count as aligned again. */
const SIZE = 3;
/** Maximum number of aligned tokens that are counted. */
const LONGEST = 10;

/**
 * Predicted outputs (OpenAI): proposes the client's guess of the answer. This pays off for edits to mostly unchanged
 * files. If the text departs from the guess, proposals resume where the text and the guess match again.
 */
export class PredictedOutputProposer {
  readonly #tokens: readonly number[];
  /** Positions in the guess after each sequence of SIZE tokens, in ascending order. */
  readonly #places: ReadonlyMap<string, readonly number[]>;
  #state: State = { last: [], next: 0, inStep: SIZE, reached: 0 };

  constructor(tokens: readonly number[]) {
    this.#tokens = tokens;
    const ends = tokens.map((_, i) => i + 1).slice(SIZE - 1);
    this.#places = Map.groupBy(ends, (end) => tokens.slice(end - SIZE, end).join());
  }

  /** Appends committed tokens. */
  push(tokens: readonly number[]): void {
    this.#state = this.#after(tokens);
  }

  /**
   * Proposes at most `length` tokens, assuming that `after` is committed first. The confidence is the number of aligned
   * tokens divided by 10. `AcceptanceByConfidence` maps the confidence to a probability.
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

/** Position of the text in the guess. */
interface State {
  readonly last: readonly number[];
  /** Position in the guess after the text so far. Undefined if the text is not aligned. */
  readonly next: number | undefined;
  readonly inStep: number;
  /** Furthest position that the text has reached. Matches after this position are preferred. */
  readonly reached: number;
}

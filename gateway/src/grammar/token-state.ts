import { Automaton, type AutomatonState } from './automaton.ts';
import { allBytes, type Expression } from './expression.ts';
import { MemoryLimit, STATE_BYTES } from './memory.ts';
import { StringMasks } from './string-masks.ts';
import { TokenMasks } from './token-masks.ts';
import { longestPrefix } from './token-trie.ts';
import type { GrammarState, Vocabulary } from './types.ts';

/**
 * Returns the state before the first token of a text. States are created when a text first reaches them, and all texts
 * of the grammar share them.
 *
 * @param memory limit that the grammar shares with others
 * @param strings masks that the grammar shares with others
 */
export function startState(
  grammar: Expression,
  vocabulary: Vocabulary,
  memory: MemoryLimit = new MemoryLimit(Number.POSITIVE_INFINITY),
  strings: StringMasks = new StringMasks(vocabulary, memory),
): GrammarState {
  return new TokenState(new Shared(grammar, vocabulary, memory, strings));
}

/** Data that all states of one grammar share. */
class Shared {
  readonly automaton: Automaton;
  readonly vocabulary: Vocabulary;
  readonly masks: TokenMasks;
  readonly states = new Map<AutomatonState, TokenState>();
  readonly #memory: MemoryLimit;
  #charged = 0;

  constructor(grammar: Expression, vocabulary: Vocabulary, memory: MemoryLimit, strings: StringMasks) {
    this.automaton = new Automaton(grammar);
    this.vocabulary = vocabulary;
    this.masks = new TokenMasks(this.automaton, vocabulary, strings);
    this.#memory = memory;
  }

  /** Charges the memory limit for the states and masks computed since the last call. */
  charge(): void {
    const used = this.automaton.size * STATE_BYTES + this.masks.count * Math.ceil(this.vocabulary.size / 8);
    if (used === this.#charged) return;
    const more = used - this.#charged;
    this.#charged = used;
    this.#memory.charge(this, more);
  }

  forget(): void {
    this.automaton.forget();
    this.masks.forget();
    this.states.clear();
    this.#charged = 0;
  }
}

class TokenState implements GrammarState {
  readonly #state: AutomatonState;
  readonly #shared: Shared;
  #mask: Uint8Array | undefined;

  constructor(shared: Shared, state = shared.automaton.start) {
    this.#state = state;
    this.#shared = shared;
    shared.states.set(state, this);
  }

  after(token: number): TokenState | undefined {
    const { vocabulary, automaton, states } = this.#shared;
    if (vocabulary.endTokens.includes(token)) return this.#state.accepting ? this : undefined;
    const bytes = vocabulary.bytes(token);
    if (bytes.length === 0) return undefined;
    let state: AutomatonState | null = this.#state;
    for (const byte of bytes) {
      state = automaton.step(state, byte);
      if (!state) return undefined;
    }
    const next = states.get(state) ?? new TokenState(this.#shared, state);
    this.#shared.charge();
    return next;
  }

  /** Mask of the allowed tokens. @throws PtpError `failed_precondition` if the vocabulary has no allowed token */
  get mask(): Uint8Array {
    if (!this.#mask) {
      this.#mask = this.#shared.masks.of(this.#state);
      this.#shared.charge();
    }
    return this.#mask;
  }

  forced(limit: number): number[] {
    const tokens: number[] = [];
    let state: TokenState = this;
    while (tokens.length < limit) {
      const token = state.#longestForced();
      const next = token === undefined ? undefined : state.after(token);
      if (token === undefined || !next) break;
      tokens.push(token);
      state = next;
    }
    return tokens;
  }

  /** Returns the longest token that consists only of forced bytes. */
  #longestForced(): number | undefined {
    return longestPrefix(this.#shared.vocabulary.tries, this.#forcedBytes());
  }

  *#forcedBytes(): Generator<number> {
    const { automaton } = this.#shared;
    let state = this.#state;
    while (!state.accepting) {
      const possible = allBytes.filter((byte) => state.transitions[byte] !== null);
      const allowed = possible.filter((byte) => automaton.step(state, byte));
      const [byte] = allowed;
      if (byte === undefined || allowed.length > 1) return;
      yield byte;
      state = automaton.step(state, byte) as AutomatonState;
    }
  }
}

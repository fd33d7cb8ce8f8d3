import { PtpError } from '@ptp/protocol/errors';
import { Automaton, type AutomatonState } from './automaton.ts';
import type { Expression } from './expression.ts';
import { childNode } from './token-trie.ts';
import type { GrammarState, Vocabulary } from './types.ts';

/**
 * Returns the state before the first token of a text. States are created when a text first reaches them, and all texts
 * of the grammar share them.
 */
export function startState(grammar: Expression, vocabulary: Vocabulary): GrammarState {
  const automaton = new Automaton(grammar);
  return new TokenState(automaton.start, { automaton, vocabulary, states: new Map(), masks: new Map() });
}

/** Data that all states of one grammar share. */
interface Shared {
  readonly automaton: Automaton;
  readonly vocabulary: Vocabulary;
  readonly states: Map<AutomatonState, TokenState>;
  /** Token masks, keyed by states truncated to the length of the longest token. */
  readonly masks: Map<AutomatonState, Uint8Array>;
}

class TokenState implements GrammarState {
  readonly #state: AutomatonState;
  readonly #shared: Shared;
  #mask: Uint8Array | undefined;

  constructor(state: AutomatonState, shared: Shared) {
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
    return states.get(state) ?? new TokenState(state, this.#shared);
  }

  /** Mask of the allowed tokens. @throws PtpError `failed_precondition` if the vocabulary has no allowed token */
  get mask(): Uint8Array {
    this.#mask ??= this.#computeMask();
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
    const { trie } = this.#shared.vocabulary;
    let state = this.#state;
    let node: number | undefined;
    let longest: number | undefined;
    for (;;) {
      const [byte, next] = this.#onlyTransition(state) ?? [];
      node = byte === undefined ? undefined : childNode(trie, node, byte);
      if (node === undefined || !next) return longest;
      longest = trie.ids[node]?.[0] ?? longest;
      state = next;
    }
  }

  #onlyTransition(state: AutomatonState): [byte: number, next: AutomatonState] | undefined {
    if (state.accepting) return undefined;
    let only: [number, AutomatonState] | undefined;
    for (let byte = 0; byte < 256; byte++) {
      const next = this.#shared.automaton.step(state, byte);
      if (!next) continue;
      if (only) return undefined;
      only = [byte, next];
    }
    return only;
  }

  #computeMask(): Uint8Array {
    const { automaton, vocabulary, masks } = this.#shared;
    const state = automaton.truncate(this.#state, vocabulary.trie.maxLength);
    const known = masks.get(state);
    if (known) return known;
    const mask = tokenMask(state, automaton, vocabulary);
    if (mask.every((bits) => bits === 0)) {
      throw new PtpError(
        'failed_precondition',
        'no token of the vocabulary can continue the text as the grammar requires',
      );
    }
    masks.set(state, mask);
    return mask;
  }
}

/** Computes a mask by walking the trie depth first and skipping all tokens below a byte that is not allowed. */
function tokenMask(start: AutomatonState, automaton: Automaton, { size, trie, endTokens }: Vocabulary): Uint8Array {
  const mask = new Uint8Array(Math.ceil(size / 8));
  // states[d] is the state after the first d bytes on the path to the current node.
  const states: AutomatonState[] = [start];
  for (let node = 0; node < trie.bytes.length; ) {
    const depth = trie.depths[node] as number;
    const state = automaton.step(states[depth] as AutomatonState, trie.bytes[node] as number);
    if (!state) {
      node = trie.ends[node] as number;
      continue;
    }
    states[depth + 1] = state;
    for (const id of trie.ids[node] as readonly number[]) mask[id >> 3] = (mask[id >> 3] as number) | (1 << (id & 7));
    node++;
  }
  // End-of-text tokens are not part of the text, so their bytes do not matter.
  for (const id of endTokens) {
    const bit = 1 << (id & 7);
    const others = (mask[id >> 3] as number) & ~bit;
    mask[id >> 3] = start.accepting ? others | bit : others;
  }
  return mask;
}

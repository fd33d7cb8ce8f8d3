import { PtpError } from '@ptp/core/errors.ts';
import type { Place } from '../generation.ts';
import { Automaton, type State } from './automaton.ts';
import type { Expression } from './expression.ts';
import type { TrieNode } from './token-trie.ts';

/** A vocabulary as a grammar needs it. */
export interface Vocabulary {
  /** V. */
  readonly size: number;
  readonly trie: TrieNode;
  readonly bytes: (id: number) => Uint8Array;
  /** Tokens that end a text: they may come where the text may end. */
  readonly ends: readonly number[];
}

/**
 * Where a text begins that is to follow a grammar. Places are made as texts get there, and shared by all texts that are at the same one.
 */
export function tokenGrammar(root: Expression, vocabulary: Vocabulary): Place {
  const automaton = new Automaton(root);
  const places = new Map<State, GrammarPlace>();
  const at = (state: State): GrammarPlace => {
    let place = places.get(state);
    if (!place) {
      place = new GrammarPlace(state, automaton, vocabulary, at);
      places.set(state, place);
    }
    return place;
  };
  return at(automaton.start);
}

class GrammarPlace implements Place {
  readonly #state: State;
  readonly #automaton: Automaton;
  readonly #vocabulary: Vocabulary;
  readonly #at: (state: State) => GrammarPlace;
  #mask: Uint8Array | undefined;

  constructor(state: State, automaton: Automaton, vocabulary: Vocabulary, at: (state: State) => GrammarPlace) {
    this.#state = state;
    this.#automaton = automaton;
    this.#vocabulary = vocabulary;
    this.#at = at;
  }

  after(token: number): Place | undefined {
    if (this.#vocabulary.ends.includes(token)) return this.#state.accepting ? this : undefined;
    const spelt = this.#vocabulary.bytes(token);
    if (spelt.length === 0) return undefined;
    let state: State | undefined = this.#state;
    for (const byte of spelt) {
      state = this.#automaton.step(state, byte);
      if (!state) return undefined;
    }
    return this.#at(state);
  }

  get mask(): Uint8Array {
    this.#mask ??= this.#allowed();
    return this.#mask;
  }

  forced(most: number): number[] {
    let place: GrammarPlace = this;
    const tokens: number[] = [];
    while (tokens.length < most) {
      const token = place.#longestForced();
      const next = token === undefined ? undefined : place.after(token);
      if (token === undefined || !(next instanceof GrammarPlace)) break;
      tokens.push(token);
      place = next;
    }
    return tokens;
  }

  /** The longest token all of whose bytes must come. */
  #longestForced(): number | undefined {
    let state = this.#state;
    let node: TrieNode | undefined = this.#vocabulary.trie;
    let longest: number | undefined;
    for (;;) {
      const [byte, next] = this.#only(state) ?? [];
      node = byte === undefined ? undefined : child(node, byte);
      if (!node || !next) return longest;
      longest = node.ids[0] ?? longest;
      state = next;
    }
  }

  /** The only byte that may come, and the state after it. */
  #only(state: State): [byte: number, next: State] | undefined {
    if (state.accepting) return undefined;
    let only: [number, State] | undefined;
    for (let byte = 0; byte < 256; byte++) {
      const next = this.#automaton.step(state, byte);
      if (!next) continue;
      if (only) return undefined;
      only = [byte, next];
    }
    return only;
  }

  /** @throws PtpError `failed_precondition` where no token can follow, as the vocabulary lacks the bytes */
  #allowed(): Uint8Array {
    const { size, trie, ends } = this.#vocabulary;
    const mask = new Uint8Array(Math.ceil(size / 8));
    const allow = (id: number) => {
      mask[id >> 3] = (mask[id >> 3] as number) | (1 << (id & 7));
    };
    if (this.#state.accepting) for (const id of ends) allow(id);
    this.#collect(trie, this.#state, allow);
    for (const id of this.#state.accepting ? [] : ends) {
      mask[id >> 3] = (mask[id >> 3] as number) & ~(1 << (id & 7));
    }
    if (mask.some((bits) => bits !== 0)) return mask;
    throw new PtpError('failed_precondition', 'the vocabulary has no token that the grammar allows here');
  }

  #collect(node: TrieNode, state: State, allow: (id: number) => void): void {
    for (const [byte, below] of node.children) {
      const next = this.#automaton.step(state, byte);
      if (!next) continue;
      for (const id of below.ids) allow(id);
      this.#collect(below, next, allow);
    }
  }
}

function child(node: TrieNode, byte: number): TrieNode | undefined {
  return node.children.find(([b]) => b === byte)?.[1];
}

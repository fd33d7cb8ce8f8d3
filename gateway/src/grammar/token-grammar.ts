import { PtpError } from '@ptp/protocol/errors';
import type { GrammarState } from '../decode/types.ts';
import { Automaton, type State } from './automaton.ts';
import type { Expression } from './expression.ts';
import { child, type TokenTrie } from './token-trie.ts';

/** A vocabulary as a grammar needs it. */
export interface Vocabulary {
  /** V. */
  readonly size: number;
  readonly trie: TokenTrie;
  readonly bytes: (id: number) => Uint8Array;
  /** Tokens that end a text: they may come where the text may end. */
  readonly ends: readonly number[];
}

/**
 * Where a text begins that is to follow a grammar. Places are made as texts get there, and shared by all texts that are at the same one.
 */
export function tokenGrammar(root: Expression, vocabulary: Vocabulary): GrammarState {
  const automaton = new Automaton(root);
  return new GrammarPlace(automaton.start, { automaton, vocabulary, places: new Map(), masks: new Map() });
}

/** What all places of one grammar share. */
interface Shared {
  readonly automaton: Automaton;
  readonly vocabulary: Vocabulary;
  readonly places: Map<State, GrammarPlace>;
  /** By states that are cut to the longest token (`Automaton.nearby`). */
  readonly masks: Map<State, Uint8Array>;
}

class GrammarPlace implements GrammarState {
  readonly #state: State;
  readonly #shared: Shared;
  #mask: Uint8Array | undefined;

  constructor(state: State, shared: Shared) {
    this.#state = state;
    this.#shared = shared;
    shared.places.set(state, this);
  }

  after(token: number): GrammarState | undefined {
    const { vocabulary, automaton, places } = this.#shared;
    if (vocabulary.ends.includes(token)) return this.#state.accepting ? this : undefined;
    const spelt = vocabulary.bytes(token);
    if (spelt.length === 0) return undefined;
    let state: State | null = this.#state;
    for (const byte of spelt) {
      state = automaton.step(state, byte);
      if (!state) return undefined;
    }
    return places.get(state) ?? new GrammarPlace(state, this.#shared);
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
    const { trie } = this.#shared.vocabulary;
    let state = this.#state;
    let node: number | undefined;
    let longest: number | undefined;
    for (;;) {
      const [byte, next] = this.#only(state) ?? [];
      node = byte === undefined ? undefined : child(trie, node, byte);
      if (node === undefined || !next) return longest;
      longest = trie.ids[node]?.[0] ?? longest;
      state = next;
    }
  }

  /** The only byte that may come, and the state after it. */
  #only(state: State): [byte: number, next: State] | undefined {
    if (state.accepting) return undefined;
    let only: [number, State] | undefined;
    for (let byte = 0; byte < 256; byte++) {
      const next = this.#shared.automaton.step(state, byte);
      if (!next) continue;
      if (only) return undefined;
      only = [byte, next];
    }
    return only;
  }

  /** @throws PtpError `failed_precondition` where no token can follow, as the vocabulary lacks the bytes */
  #allowed(): Uint8Array {
    const { automaton, vocabulary, masks } = this.#shared;
    const state = automaton.nearby(this.#state, vocabulary.trie.longest);
    const known = masks.get(state);
    if (known) return known;
    const mask = maskOf(state, automaton, vocabulary);
    if (mask.every((bits) => bits === 0))
      throw new PtpError('failed_precondition', 'the vocabulary has no token that the grammar allows here');
    masks.set(state, mask);
    return mask;
  }
}

function maskOf(start: State, automaton: Automaton, { size, trie, ends }: Vocabulary): Uint8Array {
  const mask = new Uint8Array(Math.ceil(size / 8));
  // the states along the way to a node; a node's own is at its depth + 1
  const states: State[] = [start];
  for (let node = 0; node < trie.bytes.length; ) {
    const depth = trie.depths[node] as number;
    const state = automaton.step(states[depth] as State, trie.bytes[node] as number);
    if (!state) {
      node = trie.ends[node] as number;
      continue;
    }
    states[depth + 1] = state;
    for (const id of trie.ids[node] as readonly number[]) mask[id >> 3] = (mask[id >> 3] as number) | (1 << (id & 7));
    node++;
  }
  // a token that ends a text is no part of it, whatever it spells
  for (const id of ends) {
    const bit = 1 << (id & 7);
    const rest = (mask[id >> 3] as number) & ~bit;
    mask[id >> 3] = start.accepting ? rest | bit : rest;
  }
  return mask;
}

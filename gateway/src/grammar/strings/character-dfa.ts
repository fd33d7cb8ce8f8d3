import { anyCharacter, type Ranges } from '../characters.ts';
import { getOrCreate } from '../get-or-create.ts';
import type { Term, Terms } from './terms.ts';

/** Maximum total size of the terms in one search for a match. Larger terms take longer to derive. */
const SEARCH_LIMIT = 20_000;

const ascii = Array.from({ length: 0x80 }, (_, character) => character);

/** State of a DFA over characters: the term that the rest of the text must match. */
export interface CharacterState {
  readonly term: Term;
  readonly dfa: CharacterDfa;
  /** [classes] next state, null if no match continues with the class, or undefined if not computed yet. */
  readonly next: (CharacterState | null | undefined)[];
  /** States for positions inside an encoded character. The encoding chooses the keys. */
  readonly inside: Map<string, unknown>;
}

/**
 * DFA of a term, built state by state from derivatives (Brzozowski 1964). Characters that belong to the same sets of
 * the term form a class. Every state has a match, so a text that reaches the state can be completed.
 */
export class CharacterDfa {
  readonly start: CharacterState | undefined;
  readonly terms: Terms;
  /** First character of each interval, in ascending order. */
  readonly #from: number[];
  /** [intervals] class of the interval, or -1 for surrogates. */
  readonly #classes: number[];
  /** [classes] one character of the class. */
  readonly #examples: number[] = [];
  #asciiOfClass: Map<number, number[]> | undefined;
  readonly #states = new Map<Term, CharacterState>();
  readonly #derivatives: Map<Term, Term>[] = [];
  /** Results of the search for a match: true if the term has a match. Plain terms need no entry. */
  readonly #hasMatch = new Map<Term, boolean>();

  /** @throws RangeError if the search for a match takes too long */
  constructor(term: Term, terms: Terms) {
    this.terms = terms;
    const sets = setsOf(term);
    const bounds = new Set([0, ...anyCharacter.flatMap(([from, to]) => [from, to + 1])]);
    for (const ranges of sets) for (const [from, to] of ranges) bounds.add(from).add(to + 1);
    this.#from = [...bounds].filter((bound) => bound <= 0x10ffff).sort((a, b) => a - b);
    this.#classes = this.#partition(sets);
    this.#derivatives = this.#examples.map(() => new Map());
    this.start = this.#isLive(term, true) ? this.state(term) : undefined;
  }

  /** Assigns the same class to intervals that are in the same sets. */
  #partition(sets: readonly (readonly (readonly [number, number])[])[]): number[] {
    const classes = new Map<string, number>();
    const positions = [anyCharacter, ...sets].map((ranges) => ({ ranges, at: 0 }));
    return this.#from.map((from) => {
      const members = positions.map((position) => {
        while ((position.ranges[position.at]?.[1] ?? Number.POSITIVE_INFINITY) < from) position.at++;
        return (position.ranges[position.at]?.[0] ?? Number.POSITIVE_INFINITY) <= from;
      });
      if (!members[0]) return -1;
      const key = members.map(Number).join('');
      const known = classes.get(key);
      if (known !== undefined) return known;
      classes.set(key, classes.size);
      this.#examples.push(from);
      return classes.size - 1;
    });
  }

  state(term: Term): CharacterState {
    return getOrCreate(this.#states, term, () => ({ term, dfa: this, next: [], inside: new Map() }));
  }

  /** Frees the memory of all states. States that are in use stay valid. */
  clear(): void {
    for (const state of this.#states.values()) {
      state.next.length = 0;
      state.inside.clear();
    }
    this.#states.clear();
    for (const derivatives of this.#derivatives) derivatives.clear();
  }

  /** Returns the state after a character, or null if no match continues with it. */
  step(state: CharacterState, character: number): CharacterState | null {
    const index = this.#classes[this.#interval(character)] as number;
    return index < 0 ? null : this.#stepClass(state, index);
  }

  /** Returns the different results of `step` for the characters of a range. */
  stepRange(state: CharacterState, from: number, to: number): Set<CharacterState | null> {
    const results = new Set<CharacterState | null>();
    for (let i = this.#interval(from); i < this.#from.length && (this.#from[i] as number) <= to; i++) {
      const index = this.#classes[i] as number;
      results.add(index < 0 ? null : this.#stepClass(state, index));
    }
    return results;
  }

  /** Returns the ASCII characters that belong to the same class as a character. */
  alike(character: number): readonly number[] {
    this.#asciiOfClass ??= Map.groupBy(ascii, (each) => this.#classes[this.#interval(each)] as number);
    return this.#asciiOfClass.get(this.#classes[this.#interval(character)] as number) ?? [];
  }

  #stepClass(state: CharacterState, index: number): CharacterState | null {
    const known = state.next[index];
    if (known !== undefined) return known;
    const term = this.#derivative(state.term, index);
    const next = this.#isLive(term) ? this.state(term) : null;
    state.next[index] = next;
    return next;
  }

  #interval(character: number): number {
    let low = 0;
    let high = this.#from.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if ((this.#from[middle] as number) <= character) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  #derivative(term: Term, index: number): Term {
    const known = this.#derivatives[index]?.get(term);
    if (known) return known;
    const derivative = this.#computeDerivative(term, index);
    this.#derivatives[index]?.set(term, derivative);
    return derivative;
  }

  #computeDerivative(term: Term, index: number): Term {
    const { terms } = this;
    switch (term.kind) {
      case 'nothing':
      case 'empty':
        return terms.nothing;
      case 'set': {
        const example = this.#examples[index] as number;
        return term.ranges.some(([from, to]) => example >= from && example <= to) ? terms.empty : terms.nothing;
      }
      case 'words':
        return terms.wordsAfter(term, this.#examples[index] as number);
      case 'cat': {
        const first = terms.cat(this.#derivative(term.first, index), term.rest);
        return term.first.nullable ? terms.or([first, this.#derivative(term.rest, index)]) : first;
      }
      case 'or':
        return terms.or(term.of.map((each) => this.#derivative(each, index)));
      case 'and':
        return terms.and(term.of.map((each) => this.#derivative(each, index)));
      case 'not':
        return terms.not(this.#derivative(term.of, index));
      case 'repeat': {
        const { of, min, max } = term;
        return terms.cat(this.#derivative(of, index), terms.repeat(of, Math.max(0, min - 1), max - 1));
      }
    }
  }

  /**
   * Returns true if the term has a match. If the search takes too long, the result is false. This is safe in the middle
   * of a text: the previous state has another continuation, through which its match was found.
   *
   * @param isStart true to throw a RangeError if the search takes too long
   */
  #isLive(start: Term, isStart = false): boolean {
    if (start.plain) return start.kind !== 'nothing';
    const known = this.#hasMatch.get(start);
    if (known !== undefined) return known;
    const path: Search[] = [{ term: start, pending: this.#successors(start) }];
    const seen = new Set([start]);
    let size = 0;
    let result = start.nullable;
    while (path.length > 0 && !result) {
      const { pending } = path.at(-1) as Search;
      const next = pending.pop();
      if (!next) {
        path.pop();
        continue;
      }
      if (seen.has(next) || this.#hasMatch.get(next) === false) continue;
      size += sizeOf(next);
      if (size > SEARCH_LIMIT) {
        if (isStart) throw new RangeError(`states of more than ${SEARCH_LIMIT} parts`);
        return false;
      }
      seen.add(next);
      result = next.nullable || next.plain || this.#hasMatch.get(next) === true;
      path.push({ term: next, pending: result ? [] : this.#successors(next) });
    }
    for (const term of result ? path.map(({ term }) => term) : seen) this.#hasMatch.set(term, result);
    return result;
  }

  /** Returns the derivatives that may have a match. The derivative with the least lower bound is last. */
  #successors(term: Term): Term[] {
    const next = new Set(this.#examples.map((_, index) => this.#derivative(term, index)));
    next.delete(this.terms.nothing);
    return [...next].sort((a, b) => b.shortest - a.shortest);
  }
}

interface Search {
  readonly term: Term;
  readonly pending: Term[];
}

/** Returns the number of parts of a term whose derivatives are computed separately. */
function sizeOf(term: Term): number {
  if (term.kind === 'not') return sizeOf(term.of);
  if (term.kind !== 'and' && term.kind !== 'or') return 1;
  return term.of.reduce((sum, each) => sum + sizeOf(each), 0);
}

/** Returns all sets of characters that a term distinguishes. */
function setsOf(start: Term): Ranges[] {
  const sets: Ranges[] = [];
  const characters = new Set<number>();
  const seen = new Set<Term>();
  const pending = [start];
  for (let term = pending.pop(); term; term = pending.pop()) {
    if (seen.has(term)) continue;
    seen.add(term);
    if (term.kind === 'set') sets.push(term.ranges);
    else if (term.kind === 'words') for (const text of term.texts) for (const each of text) characters.add(each);
    if (term.kind === 'cat') pending.push(term.first, term.rest);
    else if (term.kind === 'or' || term.kind === 'and') pending.push(...term.of);
    else if (term.kind === 'not' || term.kind === 'repeat') pending.push(term.of);
  }
  return [...sets, ...Array.from(characters, (each): Ranges => [[each, each]])];
}

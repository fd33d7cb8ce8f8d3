import { PtpError } from '@ptp/protocol/errors';
import type { Bytes, Expression, Reader, Repeat } from './expression.ts';
import { getOr } from './get-or.ts';

/** Ways to go on that are followed side by side. */
const MOST_WAYS = 4096;

/** An expression, then what follows it. Undefined where nothing does: the text may end there. */
interface Rest {
  readonly head: Expression;
  readonly then: Rest | undefined;
}
/** A rest whose head takes a byte. */
type Leaf = Rest & { readonly head: Bytes | Reader };

/** Where a text stands in a grammar. The same object for all texts that may go on in the same ways. */
export interface State {
  /** Whether the text may end here. */
  readonly accepting: boolean;
  readonly leaves: readonly Leaf[];
  /** [256] known steps by byte: null where it may not come, undefined where nobody has asked yet. */
  readonly steps: (State | null | undefined)[];
  /** Known steps by the leaves that take a byte: most bytes are taken by the same ones. */
  readonly stepsByLeaves: Map<string, State | null>;
}

/**
 * A grammar as an automaton that is built as far as texts go. A state is the set of all ways to go on (a stack each, as a pushdown
 * automaton has them; stacks are shared), so that choices need no decision before a byte makes it.
 */
export class Automaton {
  readonly start: State;
  /** Rests by head and what follows, so that equal ones are one object. */
  readonly #rests = new Map<Expression, Map<Rest | undefined, Rest>>();
  /** Repeats by what they repeat and how often. */
  readonly #counted = new Map<Expression, Map<string, Repeat>>();
  readonly #states = new Map<string, State>();
  readonly #ids = new Map<Rest, number>();

  constructor(root: Expression) {
    this.start = this.#state((entry) => this.#enter(this.#rest(root, undefined), entry));
  }

  /** After one more byte; null where it may not come. */
  step(state: State, byte: number): State | null {
    const known = state.steps[byte];
    if (known !== undefined) return known;
    const rests: (Rest | undefined)[] = [];
    for (const { head, then } of state.leaves) {
      if (head.kind === 'bytes') {
        if (head.has[byte]) rests.push(then);
      } else {
        const reader = head.next(byte);
        if (reader) rests.push(this.#rest(reader, then));
      }
    }
    const key = rests.map((rest) => (rest ? this.#id(rest) : -1)).join();
    const next = getOr(state.stepsByLeaves, key, () => this.#after(rests));
    state.steps[byte] = next;
    return next;
  }

  /**
   * A state that goes on as this one does for the next `length` bytes: what follows so many certain ones is left out, and counts are cut to
   * it, so that the states along a text of at most so many characters are one.
   */
  nearby(state: State, length: number): State {
    return this.#state((entry) => {
      entry.accepting = state.accepting;
      for (const { head, then } of state.leaves) entry.leaves.push(this.#rest(head, this.#cut(then, length)) as Leaf);
    });
  }

  #cut(rest: Rest | undefined, length: number): Rest | undefined {
    const heads: Expression[] = [];
    let certain = 0;
    for (let at = rest; at && certain < length; at = at.then) {
      heads.push(at.head);
      if (at.head.kind === 'bytes') certain++;
    }
    return heads.reduceRight<Rest | undefined>((then, head) => {
      if (head.kind !== 'repeat') return this.#rest(head, then);
      const most = head.most === Number.POSITIVE_INFINITY ? head.most : Math.min(head.most, length);
      return this.#rest(this.#repeat(head, Math.min(head.least, length), most), then);
    }, undefined);
  }

  #after(rests: readonly (Rest | undefined)[]): State | null {
    const next = this.#state((entry) => {
      for (const rest of rests) this.#enter(rest, entry);
    });
    return next.accepting || next.leaves.length > 0 ? next : null;
  }

  /** The state that `fill` collects. */
  #state(fill: (entry: Entry) => void): State {
    const entry: Entry = { seen: new Set(), leaves: [], accepting: false };
    fill(entry);
    const ids = [...new Set(entry.leaves.map((leaf) => this.#id(leaf)))].sort((a, b) => a - b);
    const key = `${entry.accepting} ${ids.join()}`;
    const known = this.#states.get(key);
    if (known) return known;
    const { accepting, leaves } = entry;
    const state: State = { accepting, leaves, steps: new Array(256), stepsByLeaves: new Map() };
    this.#states.set(key, state);
    return state;
  }

  /**
   * Adds all leaves that a rest can begin with.
   *
   * @throws PtpError `invalid_argument` if there are too many ways to go on: each byte of each token is tried on all of them
   */
  #enter(first: Rest | undefined, entry: Entry): void {
    const waiting = [first];
    while (waiting.length > 0) {
      const rest = waiting.pop();
      if (!rest) {
        entry.accepting = true;
        continue;
      }
      if (entry.seen.has(rest)) continue;
      entry.seen.add(rest);
      if (entry.leaves.length > MOST_WAYS || entry.seen.size > 16 * MOST_WAYS) {
        throw new PtpError(
          'invalid_argument',
          `the answer's form must have at most ${MOST_WAYS} ways to go on at a place`,
        );
      }
      const { head, then } = rest;
      switch (head.kind) {
        case 'bytes':
          entry.leaves.push(rest as Leaf);
          break;
        case 'reader':
          entry.leaves.push(rest as Leaf);
          if (head.complete) waiting.push(then);
          break;
        case 'sequence':
          waiting.push(head.parts.reduceRight<Rest | undefined>((after, part) => this.#rest(part, after), then));
          break;
        case 'choice':
          for (const option of head.options) waiting.push(this.#rest(option, then));
          break;
        case 'repeat':
          if (head.least === 0) waiting.push(then);
          if (head.most > 0) waiting.push(this.#rest(head.of, this.#rest(this.#oneLess(head), then)));
          break;
        case 'reference':
          waiting.push(this.#rest(head.to(), then));
          break;
      }
    }
  }

  #rest(head: Expression, then: Rest | undefined): Rest {
    const rests = getOr(this.#rests, head, () => new Map<Rest | undefined, Rest>());
    return getOr(rests, then, () => ({ head, then }));
  }

  #oneLess(repeat: Repeat): Repeat {
    return this.#repeat(repeat, Math.max(0, repeat.least - 1), repeat.most - 1);
  }

  /** The same with other counts. */
  #repeat(repeat: Repeat, least: number, most: number): Repeat {
    const { of } = repeat;
    if (least === repeat.least && most === repeat.most) return repeat;
    const counted = getOr(this.#counted, of, () => new Map<string, Repeat>());
    return getOr(counted, `${least} ${most}`, () => ({ kind: 'repeat', of, least, most }));
  }

  #id(rest: Rest): number {
    return getOr(this.#ids, rest, () => this.#ids.size);
  }
}

interface Entry {
  readonly seen: Set<Rest>;
  readonly leaves: Leaf[];
  accepting: boolean;
}

import type { Bytes, Expression, Reader } from './expression.ts';

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
  /** Known steps; undefined where a byte may not come. */
  readonly steps: Map<number, State | undefined>;
}

/**
 * A grammar as an automaton that is built as far as texts go. A state is the set of all ways to go on (a stack each, as a pushdown
 * automaton has them; stacks are shared), so that choices need no decision before a byte makes it.
 */
export class Automaton {
  readonly start: State;
  /** Rests by head and what follows, so that equal ones are one object. */
  readonly #rests = new Map<Expression, Map<Rest | undefined, Rest>>();
  readonly #countdowns = new Map<Expression, Map<string, Expression>>();
  readonly #states = new Map<string, State>();
  readonly #ids = new Map<Rest, number>();

  constructor(root: Expression) {
    this.start = this.#state((entry) => this.#enter(this.#rest(root, undefined), entry));
  }

  /** After one more byte; undefined where it may not come. */
  step(state: State, byte: number): State | undefined {
    if (state.steps.has(byte)) return state.steps.get(byte);
    const next = this.#state((entry) => {
      for (const { head, then } of state.leaves) {
        if (head.kind === 'bytes') {
          if (head.has[byte]) this.#enter(then, entry);
        } else {
          const reader = head.next(byte);
          if (reader) this.#enter(this.#rest(reader, then), entry);
        }
      }
    });
    const alive = next.accepting || next.leaves.length > 0 ? next : undefined;
    state.steps.set(byte, alive);
    return alive;
  }

  /** The state that `fill` collects. */
  #state(fill: (entry: Entry) => void): State {
    const entry: Entry = { seen: new Set(), leaves: [], accepting: false };
    fill(entry);
    const ids = entry.leaves.map((leaf) => this.#id(leaf)).sort((a, b) => a - b);
    const key = `${entry.accepting} ${ids.join()}`;
    const known = this.#states.get(key);
    if (known) return known;
    const state: State = { accepting: entry.accepting, leaves: entry.leaves, steps: new Map() };
    this.#states.set(key, state);
    return state;
  }

  /** Adds all leaves that a rest can begin with. */
  #enter(rest: Rest | undefined, entry: Entry): void {
    if (!rest) {
      entry.accepting = true;
      return;
    }
    if (entry.seen.has(rest)) return;
    entry.seen.add(rest);
    const { head, then } = rest;
    switch (head.kind) {
      case 'bytes':
        entry.leaves.push(rest as Leaf);
        break;
      case 'reader':
        entry.leaves.push(rest as Leaf);
        if (head.complete) this.#enter(then, entry);
        break;
      case 'sequence':
        this.#enter(
          head.parts.reduceRight<Rest | undefined>((after, part) => this.#rest(part, after), then),
          entry,
        );
        break;
      case 'choice':
        for (const option of head.options) this.#enter(this.#rest(option, then), entry);
        break;
      case 'repeat':
        if (head.least === 0) this.#enter(then, entry);
        if (head.most > 0) this.#enter(this.#rest(head.of, this.#rest(this.#oneLess(head), then)), entry);
        break;
      case 'reference':
        this.#enter(this.#rest(head.to(), then), entry);
        break;
    }
  }

  #rest(head: Expression, then: Rest | undefined): Rest {
    const rests = getOr(this.#rests, head, () => new Map<Rest | undefined, Rest>());
    return getOr(rests, then, () => ({ head, then }));
  }

  #oneLess(repeat: Expression & { kind: 'repeat' }): Expression {
    const { of, least, most } = repeat;
    if (least === 0 && most === Number.POSITIVE_INFINITY) return repeat;
    const [less, rest] = [Math.max(0, least - 1), most - 1];
    const countdowns = getOr(this.#countdowns, of, () => new Map<string, Expression>());
    return getOr(countdowns, `${less} ${rest}`, () => ({ kind: 'repeat', of, least: less, most: rest }));
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

function getOr<K, V>(map: Map<K, V>, key: K, make: () => V): V {
  const known = map.get(key);
  if (known !== undefined) return known;
  const made = make();
  map.set(key, made);
  return made;
}

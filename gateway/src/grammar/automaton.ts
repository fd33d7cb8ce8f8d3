import { PtpError } from '@ptp/protocol/errors';
import { asciiClasses, classesOf, NON_ASCII, OTHER } from './byte-classes.ts';
import { byteRange, type DfaState, type Expression } from './expression.ts';
import { getOrCreate } from './get-or-create.ts';
import { type ByteStack, type Closure, STACK_LIMIT, type Stack, Stacks } from './stacks.ts';

/** Minimum number of bytes that a state must allow before the automaton searches for a run. */
const RUN_BYTES = 24;

/** State of the automaton. Texts with the same possible continuations share one object. */
export interface AutomatonState extends Closure {
  /** [256] next state for each byte, null if the byte is not allowed, or undefined if not computed yet. */
  readonly transitions: (AutomatonState | null | undefined)[];
  /** Computed next states, keyed by the remaining stacks, because most bytes lead to the same stacks. */
  readonly byRemaining: Map<string, AutomatonState | null>;
  /** Run within the lookahead of short tokens, or undefined if not computed yet. */
  run?: Run | undefined;
}

/** Guarantee about a state: the grammar allows every text of at most `length` characters from these classes. */
export interface Run {
  /** Set of classes, see `byte-classes.ts`. */
  readonly classes: number;
  readonly length: number;
  /** True if no printable character can follow a text of exactly `length` characters. */
  readonly isWhole: boolean;
}

/** Text in quotation marks that a state is in, and the state after the closing mark. */
export interface TextInQuotes {
  readonly text: DfaState;
  readonly after: AutomatonState;
}

/** State divided into the texts of strings and everything else. */
export interface Split {
  readonly texts: readonly TextInQuotes[];
  readonly others: AutomatonState | undefined;
}

/** Maximum number of texts to divide a state into. */
const TEXTS_LIMIT = 8;

const noRun: Run = { classes: 0, length: 0, isWhole: false };
const endOfRun: Run = { ...noRun, isWhole: true };
const quote = byteRange(0x22, 0x22);
const noBytes: null[] = new Array(256).fill(null);

/**
 * Nondeterministic pushdown automaton, made deterministic step by step as texts reach new states (lazy subset
 * construction): a state is the set of all possible stacks.
 */
export class Automaton {
  readonly start: AutomatonState;
  readonly #stacks = new Stacks();
  readonly #states = new Map<string, AutomatonState>();
  /** Truncated states, keyed by the length of the lookahead. */
  readonly #truncated = new Map<number, Map<AutomatonState, AutomatonState>>();

  /** @throws PtpError `invalid_argument` if the grammar begins with more than STACK_LIMIT alternatives */
  constructor(grammar: Expression) {
    const closure = this.#stacks.closure([this.#stacks.push(grammar, undefined)]);
    if (closure.isCut) {
      const message = `the grammar of the output must have at most ${STACK_LIMIT} alternatives at one position`;
      throw new PtpError('invalid_argument', message);
    }
    this.start = this.#intern(closure);
  }

  /** Number of states created and not forgotten. */
  get size(): number {
    return this.#states.size;
  }

  /** Frees the memory of all states. States that are in use stay valid. */
  forget(): void {
    for (const state of this.#states.values()) {
      for (let byte = 0; byte < 256; byte++) if (state.transitions[byte]) state.transitions[byte] = undefined;
      state.byRemaining.clear();
      state.run = undefined;
      for (const { top } of state.stacks) if (top.kind === 'dfa') top.forget?.();
    }
    this.#stacks.forget();
    this.#states.clear();
    this.#truncated.clear();
  }

  /** Returns the state after one more byte, or null if the byte is not allowed. */
  step(state: AutomatonState, byte: number): AutomatonState | null {
    const known = state.transitions[byte];
    if (known !== undefined) return known;
    const remaining: (Stack | undefined)[] = [];
    let only: ByteStack | undefined;
    for (const stack of state.stacks) {
      const { top, below } = stack;
      if (top.kind === 'bytes') {
        if (!top.has[byte]) continue;
        remaining.push(below);
      } else {
        const next = top.next(byte);
        if (!next) continue;
        remaining.push(this.#stacks.push(next, below));
      }
      only = stack;
    }
    const next = this.#after(state, remaining);
    state.transitions[byte] = next;
    if (remaining.length === 1 && only) this.#fill(state, only, byte, next);
    return next;
  }

  /** Reuses the transition of a byte for the bytes that only the same stack allows and that lead to the same state. */
  #fill(state: AutomatonState, only: ByteStack, byte: number, next: AutomatonState | null): void {
    if (only.top.kind !== 'dfa') return;
    const others = state.stacks.filter((stack) => stack !== only).map(({ top }) => top);
    for (const other of only.top.alike?.(byte) ?? []) {
      const isShared = others.some((top) => (top.kind === 'bytes' ? top.has[other] : top.next(other) !== undefined));
      if (!isShared) state.transitions[other] = next;
    }
  }

  #after(state: AutomatonState, remaining: readonly (Stack | undefined)[]): AutomatonState | null {
    const key = remaining.map((stack) => stack?.id ?? -1).join();
    return getOrCreate(state.byRemaining, key, () => {
      const closure = this.#stacks.closure(remaining);
      return closure.accepting || closure.stacks.length > 0 ? this.#intern(closure) : null;
    });
  }

  /** Truncates the state to a lookahead of `length` bytes, so that states differing only further out share a mask. */
  truncate(state: AutomatonState, length: number): AutomatonState {
    const states = getOrCreate(this.#truncated, length, () => new Map<AutomatonState, AutomatonState>());
    return getOrCreate(states, state, () => {
      const stacks = state.stacks.map((stack) => {
        const { top, below } = stack;
        const [shorter, limited] = [shortened(top, length), this.#stacks.limited(below, length)];
        return shorter === top && limited === below ? stack : (this.#stacks.push(shorter, limited) as ByteStack);
      });
      const isSame = stacks.every((stack, i) => stack === state.stacks[i]);
      return isSame ? state : this.#intern({ stacks: [...new Set(stacks)], accepting: state.accepting });
    });
  }

  /** Returns the state before a text of the expression, after which nothing follows. */
  stateOf(expression: Expression): AutomatonState {
    return this.#intern(this.#stacks.closure([this.#stacks.push(expression, undefined)]));
  }

  /**
   * Divides a state into the texts of strings and the other stacks. The tokens that the parts allow are together those
   * that the state allows.
   */
  split(state: AutomatonState): Split {
    const texts = new Map<ByteStack, Stack>();
    for (const stack of state.stacks) {
      const { top, below } = stack;
      if (top.kind === 'dfa' && top.truncated && below?.top === quote) texts.set(stack, below);
    }
    if (texts.size === 0 || texts.size > TEXTS_LIMIT || state.stacks.length > STACK_LIMIT / 4)
      return { texts: [], others: state };
    // The closing mark of an accepting text is also a stack of the state.
    const closing = new Set<Stack>(
      [...texts].flatMap(([{ top }, below]) => ((top as DfaState).accepting ? [below] : [])),
    );
    const others = state.stacks.filter((stack) => !texts.has(stack) && !closing.has(stack));
    const parts = Array.from(texts, ([{ top }, below]) => ({
      text: top as DfaState,
      after: this.#intern(this.#stacks.closure([below.below])),
    }));
    // Where a closure may omit stacks, the parts together could allow more than the state.
    if (parts.some(({ after }) => after.stacks.length > STACK_LIMIT / 2)) return { texts: [], others: state };
    return {
      texts: parts,
      others: others.length > 0 ? this.#intern({ stacks: others, accepting: state.accepting }) : undefined,
    };
  }

  /** Returns the run from a state, up to a lookahead in bytes. */
  run(exact: AutomatonState, lookahead: number): Run {
    if (exact.run) return exact.run;
    const path: { readonly state: AutomatonState; readonly classes: number }[] = [];
    let at = this.truncate(exact, lookahead);
    while (!at.run) {
      const { classes, next } = this.#uniform(at);
      // A state on the path has no run yet, so a longer cycle ends there with a run of one character.
      if (!next) at.run = at.transitions.some(isPrintable) ? noRun : endOfRun;
      else if (next === at) at.run = { classes, length: Number.POSITIVE_INFINITY, isWhole: false };
      else if (path.length > lookahead || path.some(({ state }) => state === at))
        at.run = { ...noRun, classes, length: 1 };
      else {
        path.push({ state: at, classes });
        at = next;
      }
    }
    let after = at.run;
    for (const { state, classes } of path.toReversed()) {
      const isLonger = (classes & after.classes) === classes || after === endOfRun;
      after = isLonger ? { ...after, classes, length: after.length + 1 } : { ...noRun, classes, length: 1 };
      state.run ??= after;
      after = state.run;
    }
    exact.run = after;
    return after;
  }

  /** Returns the state to which most characters lead, and the classes whose characters all lead to this state. */
  #uniform(state: AutomatonState): { readonly classes: number; readonly next: AutomatonState | undefined } {
    const bytes = state.stacks.reduce((sum, { top }) => sum + top.bytes.length, 0);
    if (bytes < RUN_BYTES) return { classes: 0, next: undefined };
    const found = new Map<AutomatonState, { classes: number; count: number }>();
    for (const { bit, bytes } of asciiClasses) {
      const next = this.step(state, bytes[0] as number);
      if (!next || bytes.some((byte) => this.step(state, byte) !== next)) continue;
      const group = getOrCreate(found, next, () => ({ classes: 0, count: 0 }));
      group.classes |= bit;
      group.count += bytes.length;
    }
    const [largest] = [...found].sort(([, a], [, b]) => b.count - a.count);
    if (!largest) return { classes: 0, next: undefined };
    const [next, { classes }] = largest;
    return { classes: this.#afterNonAscii(state) === next ? classes | NON_ASCII : classes, next };
  }

  /** Returns the state after every non-ASCII character, or undefined if these characters lead to several states. */
  #afterNonAscii(state: AutomatonState): AutomatonState | null | undefined {
    const remaining: Stack[] = [];
    for (const { top, below } of state.stacks) {
      if ((top.bytes.at(-1) ?? 0) < 0x80) continue;
      const next = top.kind === 'dfa' ? top.afterNonAscii?.() : undefined;
      if (!next) return undefined;
      remaining.push(this.#stacks.push(next, below));
    }
    return remaining.length > 0 ? this.#after(state, remaining) : undefined;
  }

  /** Returns the state of a closure. Equal states are one object. */
  #intern({ accepting, stacks }: Closure): AutomatonState {
    return getOrCreate(this.#states, `${accepting} ${stacks.map(({ id }) => id).join()}`, () => {
      const transitions: (AutomatonState | null | undefined)[] = noBytes.slice();
      for (const { top } of stacks) for (const byte of top.bytes) transitions[byte] = undefined;
      return { accepting, stacks, transitions, byRemaining: new Map() };
    });
  }
}

const isPrintable = (next: AutomatonState | null | undefined, byte: number): boolean =>
  next !== null && (byte >= 0x80 || (classesOf([byte]) & OTHER) === 0);

const shortened = (top: ByteStack['top'], length: number): ByteStack['top'] =>
  top.kind === 'dfa' ? (top.truncated?.(length) ?? top) : top;

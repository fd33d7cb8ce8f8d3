import { PtpError } from '@ptp/protocol/errors';
import type { ByteSet, DfaState, Expression, Repeat } from './expression.ts';
import { getOrCreate } from './get-or-create.ts';

/** Maximum number of stacks in one state, because the automaton tries every byte of every token on all of them. */
const STACK_LIMIT = 4096;

/**
 * Expressions still to be matched, the next one on top. `undefined` is the empty stack, which means that the text may
 * end.
 */
interface Stack {
  readonly top: Expression;
  readonly below: Stack | undefined;
}
/** Stack whose top consumes a byte. */
type ByteStack = Stack & { readonly top: ByteSet | DfaState };

/** State of the automaton. Texts with the same possible continuations share one object. */
export interface AutomatonState {
  /** True if the text may end here. */
  readonly accepting: boolean;
  readonly stacks: readonly ByteStack[];
  /** [256] next state for each byte, null if the byte is not allowed, or undefined if not computed yet. */
  readonly transitions: (AutomatonState | null | undefined)[];
  /** Position in a string with any content, null if the text is elsewhere, or undefined if not computed yet. */
  text?: TextPosition | null | undefined;
  /** Computed next states, keyed by the remaining stacks, because most bytes lead to the same stacks. */
  readonly byRemaining: Map<string, AutomatonState | null>;
}

/** Position in a string with any content. */
export interface TextPosition {
  /** Number of characters that must follow. */
  readonly min: number;
  /** Number of characters that may follow. */
  readonly max: number;
  /** State after the closing quotation mark. */
  readonly closed: AutomatonState;
}

/**
 * Nondeterministic pushdown automaton, made deterministic step by step as texts reach new states (lazy subset
 * construction): a state is the set of all possible stacks. Stacks are interned and share their tails, so equal stacks
 * are one object.
 */
export class Automaton {
  readonly start: AutomatonState;
  readonly #stacks = new Map<Expression, Map<Stack | undefined, Stack>>();
  /** Interned repeats, keyed by the repeated expression and the counts. */
  readonly #repeats = new Map<Expression, Map<string, Repeat>>();
  readonly #states = new Map<string, AutomatonState>();
  readonly #ids = new Map<Stack, number>();
  /** Next id of a stack. `forget` does not reset it, because states in use keep keys that contain earlier ids. */
  #nextId = 0;

  constructor(grammar: Expression) {
    this.start = this.#intern((draft) => this.#expand(this.#push(grammar, undefined), draft));
  }

  /** Returns the state after one more byte, or null if the byte is not allowed. */
  step(state: AutomatonState, byte: number): AutomatonState | null {
    const known = state.transitions[byte];
    if (known !== undefined) return known;
    const remaining: (Stack | undefined)[] = [];
    for (const { top, below } of state.stacks) {
      if (top.kind === 'bytes') {
        if (top.has[byte]) remaining.push(below);
      } else {
        const next = top.next(byte);
        if (next) remaining.push(this.#push(next, below));
      }
    }
    const key = remaining.map((stack) => (stack ? this.#id(stack) : -1)).join();
    const next = getOrCreate(state.byRemaining, key, () => this.#closure(remaining));
    state.transitions[byte] = next;
    return next;
  }

  /** Number of states created and not forgotten. */
  get size(): number {
    return this.#states.size;
  }

  /** Frees the memory of all states. States that are in use stay valid. */
  forget(): void {
    for (const state of this.#states.values()) {
      state.transitions.fill(undefined);
      state.byRemaining.clear();
      state.text = undefined;
      for (const { top } of state.stacks) if (top.kind === 'dfa') top.forget?.();
    }
    for (const map of [this.#stacks, this.#repeats, this.#states, this.#ids]) map.clear();
  }

  /** Returns the position in a string with any content, or undefined if the text may also be elsewhere. */
  textOf(state: AutomatonState): TextPosition | undefined {
    if (state.text === undefined) state.text = this.#findText(state) ?? null;
    return state.text ?? undefined;
  }

  #findText({ stacks }: AutomatonState): TextPosition | undefined {
    const stack = stacks.find(({ top }) => top.kind === 'dfa' && top.text);
    if (stack?.top.kind !== 'dfa' || !stack.top.text) return undefined;
    // If the string may end here, the stack of its closing quotation mark is in the state too.
    if (!stacks.every((each) => each === stack || each === stack.below)) return undefined;
    const closed = this.step(
      this.#intern((draft) => this.#expand(stack.below, draft)),
      0x22,
    );
    return closed ? { ...stack.top.text, closed } : undefined;
  }

  /** Truncates the state to a lookahead of `length` bytes, so that states differing only further out share a mask. */
  truncate(state: AutomatonState, length: number): AutomatonState {
    return this.#intern((draft) => {
      draft.accepting = state.accepting;
      for (const { top, below } of state.stacks) {
        const shorter = top.kind === 'dfa' ? (top.truncated?.(length) ?? top) : top;
        draft.stacks.push(this.#push(shorter, this.#cut(below, length)) as ByteStack);
      }
    });
  }

  /** Removes the part of the stack below `length` byte sets, and limits counts to `length`. */
  #cut(stack: Stack | undefined, length: number): Stack | undefined {
    const kept: Expression[] = [];
    let certain = 0;
    for (let at = stack; at && certain < length; at = at.below) {
      kept.push(at.top);
      if (at.top.kind === 'bytes') certain++;
    }
    return kept.reduceRight<Stack | undefined>((below, top) => {
      if (top.kind !== 'repeat') return this.#push(top, below);
      const max = top.max === Number.POSITIVE_INFINITY ? top.max : Math.min(top.max, length);
      return this.#push(this.#withCounts(top, Math.min(top.min, length), max), below);
    }, undefined);
  }

  #closure(stacks: readonly (Stack | undefined)[]): AutomatonState | null {
    const next = this.#intern((draft) => {
      for (const stack of stacks) this.#expand(stack, draft);
    });
    return next.accepting || next.stacks.length > 0 ? next : null;
  }

  /** Returns the state that `fill` describes. Equal states are one object. */
  #intern(fill: (draft: StateDraft) => void): AutomatonState {
    const draft: StateDraft = { seen: new Set(), stacks: [], accepting: false };
    fill(draft);
    const { accepting, stacks } = draft;
    const ids = [...new Set(stacks.map((stack) => this.#id(stack)))].sort((a, b) => a - b);
    return getOrCreate(this.#states, `${accepting} ${ids.join()}`, () => {
      return { accepting, stacks, transitions: new Array(256), byRemaining: new Map() };
    });
  }

  /**
   * Adds all byte stacks to which a stack can expand (the epsilon closure).
   *
   * @throws PtpError `invalid_argument` if there are more than STACK_LIMIT stacks
   */
  #expand(first: Stack | undefined, draft: StateDraft): void {
    const pending = [first];
    while (pending.length > 0) {
      const stack = pending.pop();
      if (!stack) {
        draft.accepting = true;
        continue;
      }
      if (draft.seen.has(stack)) continue;
      draft.seen.add(stack);
      if (draft.stacks.length > STACK_LIMIT || draft.seen.size > 16 * STACK_LIMIT) {
        const message = `the grammar of the output must have at most ${STACK_LIMIT} alternatives at one position`;
        throw new PtpError('invalid_argument', message);
      }
      const { top, below } = stack;
      switch (top.kind) {
        case 'bytes':
          draft.stacks.push(stack as ByteStack);
          break;
        case 'dfa':
          draft.stacks.push(stack as ByteStack);
          if (top.accepting) pending.push(below);
          break;
        case 'sequence':
          pending.push(top.parts.reduceRight<Stack | undefined>((rest, part) => this.#push(part, rest), below));
          break;
        case 'choice':
          for (const option of top.options) pending.push(this.#push(option, below));
          break;
        case 'repeat':
          if (top.min === 0) pending.push(below);
          if (top.max > 0)
            pending.push(
              this.#push(top.of, this.#push(this.#withCounts(top, Math.max(0, top.min - 1), top.max - 1), below)),
            );
          break;
        case 'reference':
          pending.push(this.#push(top.target(), below));
          break;
      }
    }
  }

  #push(top: Expression, below: Stack | undefined): Stack {
    const stacks = getOrCreate(this.#stacks, top, () => new Map<Stack | undefined, Stack>());
    return getOrCreate(stacks, below, () => ({ top, below }));
  }

  #withCounts(repeat: Repeat, min: number, max: number): Repeat {
    const { of } = repeat;
    if (min === repeat.min && max === repeat.max) return repeat;
    const repeats = getOrCreate(this.#repeats, of, () => new Map<string, Repeat>());
    return getOrCreate(repeats, `${min} ${max}`, () => ({ kind: 'repeat', of, min, max }));
  }

  #id(stack: Stack): number {
    return getOrCreate(this.#ids, stack, () => this.#nextId++);
  }
}

interface StateDraft {
  readonly seen: Set<Stack>;
  readonly stacks: ByteStack[];
  accepting: boolean;
}

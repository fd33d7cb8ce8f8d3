import type { ByteSet, DfaState, Expression, Repeat } from './expression.ts';
import { getOrCreate } from './get-or-create.ts';

/**
 * Expressions still to be matched, the next one on top. `undefined` is the empty stack, which means that the text may
 * end.
 */
export interface Stack {
  readonly id: number;
  readonly top: Expression;
  readonly below: Stack | undefined;
  /** True if the stack contains a count that a lookahead can limit. */
  readonly isCounted: boolean;
}

/** Stack whose top consumes a byte. */
export type ByteStack = Stack & { readonly top: ByteSet | DfaState };

/** All byte stacks to which stacks expand before the next byte is consumed (the epsilon closure). */
export interface Closure {
  readonly stacks: readonly ByteStack[];
  /** True if the closure includes the empty stack, so that the text may end. */
  readonly accepting: boolean;
  /** True if the closure omits stacks because there are more than STACK_LIMIT. */
  readonly isCut?: boolean;
}

/** Maximum number of stacks in one closure, because the automaton tries every byte of every token on all of them. */
export const STACK_LIMIT = 4096;

/** Stacks of one grammar. They are interned and share their tails, so equal stacks are one object. */
export class Stacks {
  readonly #stacks = new Map<Expression, Map<Stack | undefined, Stack>>();
  /** Interned repeats, keyed by the repeated expression and the counts. */
  readonly #repeats = new Map<Expression, Map<string, Repeat>>();
  /** Closures of the stacks below accepting DFA states. */
  readonly #closures = new Map<Stack, Closure>();
  /** Stacks with limited counts, keyed by the limit. */
  readonly #limited = new Map<number, Map<Stack, Stack>>();
  /** Next id of a stack. `forget` does not reset it, because states in use keep keys that contain earlier ids. */
  #nextId = 0;

  push(top: Expression, below: Stack | undefined): Stack {
    const stacks = getOrCreate(this.#stacks, top, () => new Map<Stack | undefined, Stack>());
    return getOrCreate(stacks, below, () => {
      const isCounted = below?.isCounted || (top.kind === 'repeat' && (top.min > 1 || Number.isFinite(top.max)));
      return { id: this.#nextId++, top, below, isCounted };
    });
  }

  /** Frees the memory of all stacks. Stacks that are in use stay valid. */
  forget(): void {
    for (const map of [this.#stacks, this.#repeats, this.#closures, this.#limited]) map.clear();
  }

  /**
   * Returns the closure of several stacks. Omits all stacks beyond STACK_LIMIT. Each remaining stack can be completed,
   * so the text can always be finished.
   */
  closure(stacks: readonly (Stack | undefined)[]): Closure {
    const seen = new Set<Stack>();
    const found: ByteStack[] = [];
    let [accepting, isCut] = [false, false];
    const pending = stacks.toReversed();
    while (pending.length > 0) {
      const stack = pending.pop();
      if (!stack) {
        accepting = true;
        continue;
      }
      if (seen.has(stack)) continue;
      seen.add(stack);
      if (found.length >= STACK_LIMIT || seen.size > 16 * STACK_LIMIT) {
        isCut = true;
        break;
      }
      const { top, below } = stack;
      switch (top.kind) {
        case 'bytes':
          found.push(stack as ByteStack);
          break;
        case 'dfa':
          found.push(stack as ByteStack);
          if (top.accepting && below) {
            // Many states of a DFA, such as those of white space, have the same stack below them.
            const rest = getOrCreate(this.#closures, below, () => this.closure([below]));
            for (const each of rest.stacks) {
              if (seen.has(each)) continue;
              seen.add(each);
              found.push(each);
            }
            accepting ||= rest.accepting;
          } else if (top.accepting) accepting = true;
          break;
        case 'sequence':
          pending.push(top.parts.reduceRight<Stack | undefined>((rest, part) => this.push(part, rest), below));
          break;
        case 'choice':
          for (let i = top.options.length - 1; i >= 0; i--) {
            pending.push(this.push(top.options[i] as Expression, below));
          }
          break;
        case 'repeat':
          if (top.min === 0) pending.push(below);
          if (top.max > 0) {
            const rest = this.push(this.#withCounts(top, Math.max(0, top.min - 1), top.max - 1), below);
            pending.push(this.push(top.of, rest));
          }
          break;
        case 'reference':
          pending.push(this.push(top.target(), below));
          break;
      }
    }
    return { stacks: found, accepting, isCut };
  }

  /** Limits all counts of a stack, so that stacks that differ only after more than `length` bytes become equal. */
  limited(stack: Stack | undefined, length: number): Stack | undefined {
    const known = getOrCreate(this.#limited, length, () => new Map<Stack, Stack>());
    const path: Stack[] = [];
    let at = stack;
    while (at?.isCounted && !known.has(at)) {
      path.push(at);
      at = at.below;
    }
    let result = at?.isCounted ? known.get(at) : at;
    for (const each of path.toReversed()) {
      result = this.push(this.#withLimit(each.top, length), result);
      known.set(each, result);
    }
    return result;
  }

  #withLimit(top: Expression, length: number): Expression {
    if (top.kind !== 'repeat') return top;
    return this.#withCounts(top, Math.min(top.min, length), top.max > length ? Number.POSITIVE_INFINITY : top.max);
  }

  #withCounts(repeat: Repeat, min: number, max: number): Repeat {
    const { of } = repeat;
    if (min === repeat.min && max === repeat.max) return repeat;
    const repeats = getOrCreate(this.#repeats, of, () => new Map<string, Repeat>());
    return getOrCreate(repeats, `${min} ${max}`, () => ({ kind: 'repeat', of, min, max }));
  }
}

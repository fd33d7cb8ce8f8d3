import { byteRange, type Expression, repeat, sequence } from './expression.ts';
import { emptyMask } from './token-bits.ts';
import type { GrammarState, Vocabulary } from './types.ts';

const anyBytes = repeat(byteRange(0x00, 0xff));

/** Matches these bytes and then `following`. Default: any bytes. */
export function afterPrefix(prefix: Uint8Array, following: Expression = anyBytes): Expression {
  return sequence(...Array.from(prefix, (byte) => byteRange(byte, byte)), following);
}

/**
 * State of a text that must begin with given bytes. After the token that completes these bytes, all tokens are allowed,
 * including special tokens, which have no bytes and therefore match no grammar.
 */
export class PrefixState implements GrammarState {
  readonly #state: GrammarState;
  readonly #left: number;
  readonly #vocabulary: Vocabulary;

  /**
   * @param state state in the grammar of {@link afterPrefix}
   * @param left number of bytes that are still constrained, at least 1
   */
  constructor(state: GrammarState, left: number, vocabulary: Vocabulary) {
    this.#state = state;
    this.#left = left;
    this.#vocabulary = vocabulary;
  }

  after(token: number): GrammarState | undefined {
    const next = this.#state.after(token);
    if (!next) return undefined;
    const left = this.#left - this.#vocabulary.bytes(token).length;
    return left > 0 ? new PrefixState(next, left, this.#vocabulary) : new OpenState(this.#vocabulary.size);
  }

  get mask(): Uint8Array {
    return this.#state.mask;
  }

  forced(limit: number): number[] {
    return this.#state.forced(limit);
  }
}

/** State that allows all tokens. */
class OpenState implements GrammarState {
  readonly isOpen = true;
  readonly #size: number;

  constructor(size: number) {
    this.#size = size;
  }

  after(): GrammarState {
    return this;
  }

  get mask(): Uint8Array {
    const mask = emptyMask(this.#size).fill(0xff);
    // Bits beyond the vocabulary stay 0.
    if (this.#size % 8 > 0) mask[mask.length - 1] = (1 << (this.#size % 8)) - 1;
    return mask;
  }

  forced(): number[] {
    return [];
  }
}

import { Automaton, type AutomatonState } from './automaton.ts';
import { type DfaState, empty } from './expression.ts';
import { getOrCreate } from './get-or-create.ts';
import { type Holder, type MemoryLimit, STATE_BYTES } from './memory.ts';
import { plainMask } from './plain-mask.ts';
import { allow, emptyMask } from './token-bits.ts';
import { allowedTokens, allowRanges, type Ranges } from './trie-walk.ts';
import type { Vocabulary } from './types.ts';

/**
 * Masks of the texts of strings, apart from what follows them. A grammar has few different strings, but many positions
 * with a string, and different members follow each of them. All grammars over a vocabulary share these masks.
 *
 * `closing` has one bit for each entry of ClosingTokens: it is set if the entry's quotation mark may end the string.
 */
export class StringMasks implements Holder {
  readonly #vocabulary: Vocabulary;
  readonly #memory: MemoryLimit;
  readonly #automaton = new Automaton(empty);
  readonly #short = new Map<DfaState, { readonly mask: Uint8Array; readonly closing: Uint8Array }>();
  readonly #long = new Map<DfaState, { readonly ranges: Ranges; readonly closing: Uint8Array }>();
  #charged = 0;

  constructor(vocabulary: Vocabulary, memory: MemoryLimit) {
    this.#vocabulary = vocabulary;
    this.#memory = memory;
  }

  /** Returns the short tokens that may follow in a string, as a mask. */
  short(text: DfaState): { readonly mask: Uint8Array; readonly closing: Uint8Array } {
    return getOrCreate(this.#short, text, () => {
      const { tries, size } = this.#vocabulary;
      const state = this.#automaton.stateOf(text);
      const mask = plainMask(this.#automaton, tries.plain, state, size);
      const { ranges, closing } = this.#walk(state, 'marked');
      allowRanges(mask, tries.marked, ranges);
      return { mask, closing };
    });
  }

  /** Returns the long tokens that may follow in a string, as ranges of their trie. */
  long(text: DfaState): { readonly ranges: Ranges; readonly closing: Uint8Array } {
    return getOrCreate(this.#long, text, () => this.#walk(this.#automaton.stateOf(text), 'long'));
  }

  forget(): void {
    this.#automaton.forget();
    this.#short.clear();
    this.#long.clear();
    this.#charged = 0;
  }

  /** Charges the memory limit for the masks computed since the last call. */
  charge(): void {
    const masks = this.#short.size * Math.ceil(this.#vocabulary.size / 8);
    const used = this.#automaton.size * STATE_BYTES + masks;
    const more = used - this.#charged;
    this.#charged = used;
    // Also without new masks, because the least recently charged holder forgets first.
    this.#memory.charge(this, more);
  }

  #walk(state: AutomatonState, kind: 'marked' | 'long') {
    const { tokens, entries } = this.#vocabulary.closing[kind];
    const closing = emptyMask(tokens.length);
    const onQuote = (node: number) => {
      for (const entry of entries.get(node) ?? []) allow(closing, entry);
    };
    const options = { hasRuns: kind === 'marked', onQuote };
    return { ranges: allowedTokens(this.#automaton, this.#vocabulary.tries[kind], state, options), closing };
  }
}

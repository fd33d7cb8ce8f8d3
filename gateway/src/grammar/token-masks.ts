import { PtpError } from '@ptp/protocol/errors';
import type { Automaton, AutomatonState } from './automaton.ts';
import { getOrCreate } from './get-or-create.ts';
import { plainMask } from './plain-mask.ts';
import type { StringMasks } from './string-masks.ts';
import { allow, allowAll, disallow, emptyMask, isAllowed } from './token-bits.ts';
import { SHORT_LENGTH } from './token-trie.ts';
import { allowedTokens, allowRanges, type Ranges } from './trie-walk.ts';
import type { Vocabulary } from './types.ts';

/** Computes the token masks of one grammar. */
export class TokenMasks {
  readonly #automaton: Automaton;
  readonly #vocabulary: Vocabulary;
  readonly #strings: StringMasks;
  readonly #noTokens: Uint8Array;
  /** Token masks, keyed by states truncated to the length of the longest token. */
  readonly #masks = new Map<AutomatonState, Uint8Array>();
  /** Masks of the short tokens only, keyed by states truncated to their length. */
  readonly #shortMasks = new Map<AutomatonState, Uint8Array>();
  /** Entries of ClosingTokens that are allowed after a quotation mark, keyed by the state after the mark. */
  readonly #closing = { marked: new Map<AutomatonState, Ranges>(), long: new Map<AutomatonState, Ranges>() };

  constructor(automaton: Automaton, vocabulary: Vocabulary, strings: StringMasks) {
    this.#automaton = automaton;
    this.#vocabulary = vocabulary;
    this.#strings = strings;
    this.#noTokens = emptyMask(vocabulary.size);
  }

  /** Number of masks computed and not forgotten. */
  get count(): number {
    return this.#masks.size + this.#shortMasks.size;
  }

  forget(): void {
    for (const map of [this.#masks, this.#shortMasks, this.#closing.marked, this.#closing.long]) map.clear();
  }

  /** Returns the mask of a state. @throws PtpError `failed_precondition` if the vocabulary has no allowed token */
  of(exact: AutomatonState): Uint8Array {
    const length = Math.max(SHORT_LENGTH, this.#vocabulary.tries.long.maxLength);
    const state = this.#automaton.truncate(exact, length);
    return getOrCreate(this.#masks, state, () => {
      const short = this.#automaton.truncate(exact, SHORT_LENGTH);
      // More states share a mask of the short tokens, because the few long tokens need a longer lookahead.
      const mask =
        short === state
          ? this.#ofShort(short)
          : getOrCreate(this.#shortMasks, short, () => this.#ofShort(short)).slice();
      this.#allowLong(mask, state);
      this.#strings.charge();
      return this.#finished(mask, state.accepting);
    });
  }

  #ofShort(state: AutomatonState): Uint8Array {
    const { plain, marked } = this.#vocabulary.tries;
    const automaton = this.#automaton;
    const { texts, others } = automaton.split(state);
    const [first, ...more] = texts;
    if (!first) {
      const mask = plainMask(automaton, plain, state, this.#vocabulary.size);
      allowRanges(mask, marked, allowedTokens(automaton, marked, state));
      return mask;
    }
    const mask = this.#strings.short(first.text).mask.slice();
    for (const { text } of more) allowAll(mask, this.#strings.short(text).mask);
    for (const { text, after } of texts) this.#allowClosing(mask, this.#strings.short(text).closing, after, 'marked');
    for (const trie of others ? [plain, marked] : []) {
      allowRanges(mask, trie, allowedTokens(automaton, trie, others as AutomatonState));
    }
    return mask;
  }

  #allowLong(mask: Uint8Array, state: AutomatonState): void {
    const { long } = this.#vocabulary.tries;
    const { texts, others } = this.#automaton.split(state);
    for (const { text, after } of texts) {
      const tokens = this.#strings.long(text);
      allowRanges(mask, long, tokens.ranges);
      this.#allowClosing(mask, tokens.closing, after, 'long');
    }
    if (others) allowRanges(mask, long, allowedTokens(this.#automaton, long, others, { hasRuns: false }));
  }

  /** Allows the tokens that end a string and continue after it. @param closing entries that can end the string */
  #allowClosing(mask: Uint8Array, closing: Uint8Array, after: AutomatonState, kind: 'marked' | 'long'): void {
    const { rests, tokens } = this.#vocabulary.closing[kind];
    const ranges = getOrCreate(this.#closing[kind], after, () =>
      allowedTokens(this.#automaton, rests, after, { hasRuns: kind === 'marked' }),
    );
    for (const [from, to] of ranges) {
      for (let i = from; i < to; i++) if (isAllowed(closing, i)) allow(mask, tokens[i] as number);
    }
  }

  #finished(mask: Uint8Array, accepting: boolean): Uint8Array {
    // End-of-text tokens are not part of the text, so their bytes do not matter.
    for (const id of this.#vocabulary.endTokens) {
      if (accepting) allow(mask, id);
      else disallow(mask, id);
    }
    if (Buffer.compare(mask, this.#noTokens) !== 0) return mask;
    throw new PtpError(
      'failed_precondition',
      'no token of the vocabulary can continue the text as the grammar requires',
    );
  }
}

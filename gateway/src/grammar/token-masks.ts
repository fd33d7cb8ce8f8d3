import { PtpError } from '@ptp/protocol/errors';
import type { Automaton, AutomatonState, TextPosition } from './automaton.ts';
import { getOrCreate } from './get-or-create.ts';
import { allow, disallow, emptyMask } from './token-bits.ts';
import type { Vocabulary } from './types.ts';

/** Computes the token masks of one grammar. */
export class TokenMasks {
  readonly #automaton: Automaton;
  readonly #vocabulary: Vocabulary;
  /** Token masks, keyed by states truncated to the length of the longest token. */
  readonly #masks = new Map<AutomatonState, Uint8Array>();
  /** Masks of strings with any content, keyed by the state after the closing quotation mark and the limits. */
  readonly #textMasks = new Map<AutomatonState, Map<string, Uint8Array>>();
  /** Suffixes that may follow a closing quotation mark, one byte per suffix, keyed by the state after the mark. */
  readonly #suffixes = new Map<AutomatonState, Uint8Array>();

  #count = 0;

  constructor(automaton: Automaton, vocabulary: Vocabulary) {
    this.#automaton = automaton;
    this.#vocabulary = vocabulary;
  }

  /** Number of masks computed and not forgotten. */
  get count(): number {
    return this.#count;
  }

  forget(): void {
    this.#count = 0;
    this.#masks.clear();
    this.#textMasks.clear();
    this.#suffixes.clear();
  }

  /** Returns the mask of a state. @throws PtpError `failed_precondition` if the vocabulary has no allowed token */
  of(exact: AutomatonState): Uint8Array {
    const text = this.#automaton.textOf(exact);
    if (text) return this.#ofText(text);
    const state = this.#automaton.truncate(exact, this.#vocabulary.trie.maxLength);
    return getOrCreate(this.#masks, state, () => this.#finished(this.#walk(state), state.accepting));
  }

  #finished(mask: Uint8Array, accepting: boolean): Uint8Array {
    this.#count++;
    // End-of-text tokens are not part of the text, so their bytes do not matter.
    for (const id of this.#vocabulary.endTokens) {
      if (accepting) allow(mask, id);
      else disallow(mask, id);
    }
    if (mask.some((bits) => bits !== 0)) return mask;
    throw new PtpError(
      'failed_precondition',
      'no token of the vocabulary can continue the text as the grammar requires',
    );
  }

  /** Returns the mask of a string with any content. Strings whose limits exceed the longest token share one mask. */
  #ofText({ min, max, closed }: TextPosition): Uint8Array {
    const { maxLength } = this.#vocabulary.trie;
    const after = this.#automaton.truncate(closed, maxLength);
    const limits = [Math.min(min, maxLength), Math.min(max, maxLength)] as const;
    const masks = getOrCreate(this.#textMasks, after, () => new Map<string, Uint8Array>());
    return getOrCreate(masks, limits.join(), () => this.#finished(this.#textMask(...limits, after), false));
  }

  /** Computes the mask of a string. Only tokens that close the string depend on the grammar after the string. */
  #textMask(min: number, max: number, closed: AutomatonState): Uint8Array {
    const { content, trie } = this.#vocabulary;
    const mask = content.mask.slice();
    if (max < trie.maxLength) {
      for (const [i, id] of content.ids.entries()) {
        if ((content.characters[i] as number) > max) disallow(mask, id);
      }
    }
    const allowed = this.#allowedSuffixes(closed);
    for (const { id, characters, suffix } of content.closing) {
      if (allowed[suffix] && characters >= min && characters <= max) allow(mask, id);
    }
    return mask;
  }

  /** Walks the trie depth first and skips all tokens below a byte that is not allowed. */
  #walk(start: AutomatonState): Uint8Array {
    const automaton = this.#automaton;
    const { trie, content, size } = this.#vocabulary;
    const mask = emptyMask(size);
    // states[d] is the state after the first d bytes on the path to the current node.
    const states: AutomatonState[] = [start];
    for (let node = 0; node < trie.bytes.length; ) {
      const depth = trie.depths[node] as number;
      const state = automaton.step(states[depth] as AutomatonState, trie.bytes[node] as number);
      const end = trie.ends[node] as number;
      if (!state) {
        node = end;
        continue;
      }
      const text = content.isBoundary[node] ? automaton.textOf(state) : undefined;
      if (text && text.min === 0 && text.max >= trie.maxLength) {
        this.#allowContent(node, end, text.closed, mask);
        node = end;
        continue;
      }
      states[depth + 1] = state;
      for (const id of trie.ids[node] as readonly number[]) allow(mask, id);
      node++;
    }
    return mask;
  }

  /** Allows the tokens of a subtree that are content of a string or close the string. */
  #allowContent(node: number, end: number, closed: AutomatonState, mask: Uint8Array): void {
    const { content } = this.#vocabulary;
    const last = content.idsBefore[end] as number;
    for (let i = content.idsBefore[node] as number; i < last; i++) allow(mask, content.ids[i] as number);
    const allowed = this.#allowedSuffixes(closed);
    const lastClosing = content.closingBefore[end] as number;
    for (let i = content.closingBefore[node] as number; i < lastClosing; i++) {
      const closing = content.closing[i];
      if (closing && allowed[closing.suffix]) allow(mask, closing.id);
    }
  }

  #allowedSuffixes(closed: AutomatonState): Uint8Array {
    return getOrCreate(this.#suffixes, closed, () => {
      const { suffixes, suffixCount } = this.#vocabulary.content;
      const allowed = new Uint8Array(suffixCount);
      // The empty suffix is always allowed.
      allowed[0] = 1;
      const states: AutomatonState[] = [closed];
      for (let node = 0; node < suffixes.bytes.length; ) {
        const depth = suffixes.depths[node] as number;
        const state = this.#automaton.step(states[depth] as AutomatonState, suffixes.bytes[node] as number);
        if (state) {
          states[depth + 1] = state;
          for (const index of suffixes.ids[node] as readonly number[]) allowed[index] = 1;
        }
        node = state ? node + 1 : (suffixes.ends[node] as number);
      }
      return allowed;
    });
  }
}

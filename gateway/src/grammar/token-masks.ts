import { PtpError } from '@ptp/protocol/errors';
import type { Automaton, AutomatonState } from './automaton.ts';
import { getOrCreate } from './get-or-create.ts';
import { allow, disallow, emptyMask } from './token-bits.ts';
import { NODE, SHORT_LENGTH, type TokenTrie } from './token-trie.ts';
import type { Vocabulary } from './types.ts';

/** Minimum number of nodes in a subtree before a walk checks if a run allows the whole subtree. */
const RUN_NODES = 4;

/** Computes the token masks of one grammar. */
export class TokenMasks {
  readonly #automaton: Automaton;
  readonly #vocabulary: Vocabulary;
  readonly #noTokens: Uint8Array;
  /** Token masks, keyed by states truncated to the length of the longest token. */
  readonly #masks = new Map<AutomatonState, Uint8Array>();
  /** Masks of the short tokens only, keyed by states truncated to their length. */
  readonly #shortMasks = new Map<AutomatonState, Uint8Array>();

  constructor(automaton: Automaton, vocabulary: Vocabulary) {
    this.#automaton = automaton;
    this.#vocabulary = vocabulary;
    this.#noTokens = emptyMask(vocabulary.size);
  }

  /** Number of masks computed and not forgotten. */
  get count(): number {
    return this.#masks.size + this.#shortMasks.size;
  }

  forget(): void {
    this.#masks.clear();
    this.#shortMasks.clear();
  }

  /** Returns the mask of a state. @throws PtpError `failed_precondition` if the vocabulary has no allowed token */
  of(exact: AutomatonState): Uint8Array {
    const { long } = this.#vocabulary.tries;
    const state = this.#automaton.truncate(exact, Math.max(SHORT_LENGTH, long.maxLength));
    return getOrCreate(this.#masks, state, () => {
      const short = this.#automaton.truncate(exact, SHORT_LENGTH);
      // More states share a mask of the short tokens, because the few long tokens need a longer lookahead.
      const mask =
        short === state
          ? this.#ofShort(short)
          : getOrCreate(this.#shortMasks, short, () => this.#ofShort(short)).slice();
      this.#allow(mask, long, state, false);
      return this.#finished(mask, state.accepting);
    });
  }

  #ofShort(state: AutomatonState): Uint8Array {
    const { plain, marked } = this.#vocabulary.tries;
    const mask = this.#plainMask(plain, state);
    this.#allow(mask, marked, state);
    return mask;
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

  #plainMask(plain: TokenTrie, state: AutomatonState): Uint8Array {
    const run = this.#automaton.run(state, SHORT_LENGTH);
    if ((plain.classes & ~run.classes) === 0) {
      if (plain.maxLength <= run.length) return plain.mask.slice();
      if (run.isWhole) return plain.maskUpTo(run.length).slice();
    }
    const ranges = this.#allowed(plain, state);
    const count = ranges.reduce((sum, [from, to]) => sum + to - from, 0);
    if (count < plain.ids.length / 2) {
      const mask = emptyMask(this.#vocabulary.size);
      for (const [from, to] of ranges) allowRange(mask, plain, from, to);
      return mask;
    }
    const mask = plain.mask.slice();
    let last = 0;
    for (const [from, to] of [...ranges, [plain.ids.length, 0] as const]) {
      for (let i = last; i < from; i++) disallow(mask, plain.ids[i] as number);
      last = to;
    }
    return mask;
  }

  #allow(mask: Uint8Array, trie: TokenTrie, state: AutomatonState, hasRuns = true): void {
    for (const [from, to] of this.#allowed(trie, state, hasRuns)) allowRange(mask, trie, from, to);
  }

  /**
   * Returns the allowed tokens as ranges of `trie.ids`. Walks the trie depth first. Skips all tokens below a byte that
   * is not allowed, and allows all tokens below a node without a walk if a run of the state includes them.
   */
  #allowed(trie: TokenTrie, start: AutomatonState, hasRuns = true): [from: number, to: number][] {
    const automaton = this.#automaton;
    const { nodes, size } = trie;
    const ranges: [number, number][] = [];
    let last: [number, number] | undefined;
    // states[d] is the state after the first d bytes on the path to the current node.
    const states: AutomatonState[] = [start];
    for (let node = 0; node < size; ) {
      const at = node * NODE.size;
      const [endAndByte, depthAndCharacters] = [nodes[at] as number, nodes[at + NODE.depthAndCharacters] as number];
      const [end, depth] = [endAndByte >> 8, depthAndCharacters >> 16];
      const state = automaton.step(states[depth] as AutomatonState, endAndByte & 0xff);
      if (!state) {
        node = end;
        continue;
      }
      let next = node + 1;
      if (hasRuns && end - node > RUN_NODES) {
        const run = state.run ?? automaton.run(state, SHORT_LENGTH);
        const isWithin = ((nodes[at + NODE.classesBelow] as number) & ~run.classes) === 0;
        if (isWithin && (depthAndCharacters & 0xffff) <= run.length) next = end;
      }
      states[depth + 1] = state;
      const from = nodes[at + NODE.idsBefore] as number;
      const to = nodes[next * NODE.size + NODE.idsBefore] as number;
      if (last && from === last[1]) last[1] = to;
      else if (from < to) {
        last = [from, to];
        ranges.push(last);
      }
      node = next;
    }
    return ranges;
  }
}

function allowRange(mask: Uint8Array, { ids }: TokenTrie, from: number, to: number): void {
  for (let i = from; i < to; i++) allow(mask, ids[i] as number);
}

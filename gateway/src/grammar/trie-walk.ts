import type { Automaton, AutomatonState } from './automaton.ts';
import { allow } from './token-bits.ts';
import { NODE, SHORT_LENGTH, type TokenTrie } from './token-trie.ts';

/** Minimum number of nodes in a subtree before a walk checks if a run allows the whole subtree. */
const RUN_NODES = 4;

/** Ranges of `TokenTrie.ids`. */
export type Ranges = readonly (readonly [from: number, to: number])[];

export interface WalkOptions {
  /** False if the tokens are longer than the lookahead of runs. Default: true. */
  readonly hasRuns?: boolean;
  /** Receives each node of a quotation mark before which the text may end. */
  readonly onQuote?: (node: number) => void;
}

/**
 * Returns the tokens that the grammar allows from a state. Walks the trie depth first. Skips all tokens below a byte
 * that is not allowed, and allows all tokens below a node without a walk if a run of the state includes them.
 */
export function allowedTokens(
  automaton: Automaton,
  { nodes, size, ids }: TokenTrie,
  start: AutomatonState,
  { hasRuns = true, onQuote }: WalkOptions = {},
): Ranges {
  const ranges: [number, number][] = [];
  // Tokens without bytes come first.
  const empty = size === 0 ? ids.length : (nodes[NODE.idsBefore] as number);
  let last: [number, number] | undefined = empty > 0 ? [0, empty] : undefined;
  if (last) ranges.push(last);
  // states[d] is the state after the first d bytes on the path to the current node.
  const states: AutomatonState[] = [start];
  for (let node = 0; node < size; ) {
    const at = node * NODE.size;
    const [endAndByte, depthAndCharacters] = [nodes[at] as number, nodes[at + NODE.depthAndCharacters] as number];
    const [end, depth] = [endAndByte >> 8, depthAndCharacters >> 16];
    const before = states[depth] as AutomatonState;
    const byte = endAndByte & 0xff;
    if (byte === 0x22 && before.accepting) onQuote?.(node);
    const known = before.transitions[byte];
    const state = known === undefined ? automaton.step(before, byte) : known;
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

/** Allows the tokens of ranges of `TokenTrie.ids`. */
export function allowRanges(mask: Uint8Array, { ids }: TokenTrie, ranges: Ranges): void {
  for (const [from, to] of ranges) for (let i = from; i < to; i++) allow(mask, ids[i] as number);
}

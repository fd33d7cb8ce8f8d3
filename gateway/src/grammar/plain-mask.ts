import type { Automaton, AutomatonState } from './automaton.ts';
import { disallow, emptyMask } from './token-bits.ts';
import { SHORT_LENGTH, type TokenTrie } from './token-trie.ts';
import { allowedTokens, allowRanges } from './trie-walk.ts';

/** Returns the mask of the plain tokens that a state allows. The caller owns the mask. */
export function plainMask(automaton: Automaton, plain: TokenTrie, state: AutomatonState, size: number): Uint8Array {
  const run = automaton.run(state, SHORT_LENGTH);
  if ((plain.classes & ~run.classes) === 0) {
    if (plain.maxLength <= run.length) return plain.mask.slice();
    if (run.isWhole) return plain.maskUpTo(run.length).slice();
  }
  const ranges = allowedTokens(automaton, plain, state);
  const count = ranges.reduce((sum, [from, to]) => sum + to - from, 0);
  if (count < plain.ids.length / 2) {
    const mask = emptyMask(size);
    allowRanges(mask, plain, ranges);
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

import type { DfaState } from './expression.ts';
import { allow, emptyMask } from './token-bits.ts';
import { type TokenTrie, tokenTrie } from './token-trie.ts';

/** Token that ends a JSON string: some content, the closing quotation mark, and a suffix. */
interface ClosingToken {
  readonly id: number;
  /** Number of characters before the quotation mark. */
  readonly characters: number;
  /** Index of the bytes after the quotation mark in `suffixes`. */
  readonly suffix: number;
}

/**
 * Tokens of a vocabulary, by how they continue a JSON string that may have any content. Nearly all tokens are content,
 * so their part of a mask is the same for all such strings.
 */
export interface ContentTokens {
  /** Mask of the tokens that are content. */
  readonly mask: Uint8Array;
  /** Content tokens in the order of the trie. */
  readonly ids: Uint32Array;
  /** [tokens in `ids`] number of characters that begin in the token. */
  readonly characters: Uint16Array;
  readonly closing: readonly ClosingToken[];
  /** [nodes + 1] number of content tokens before the node. */
  readonly idsBefore: Uint32Array;
  /** [nodes + 1] number of closing tokens before the node. */
  readonly closingBefore: Uint32Array;
  /** [nodes] 1 if the path to the node is content that ends with a whole character. */
  readonly isBoundary: Uint8Array;
  /** Trie of the different suffixes. Ids are indices. The empty suffix, which the trie omits, is index 0. */
  readonly suffixes: TokenTrie;
  readonly suffixCount: number;
}

const QUOTATION_MARK = 0x22;

/** @param text DFA of the content of any JSON string */
export function contentTokens(size: number, trie: TokenTrie, text: DfaState): ContentTokens {
  const nodes = trie.bytes.length;
  const mask = emptyMask(size);
  const [idsBefore, closingBefore] = [new Uint32Array(nodes + 1), new Uint32Array(nodes + 1)];
  const isBoundary = new Uint8Array(nodes);
  const [ids, characters]: [number[], number[]] = [[], []];
  const closing: ClosingToken[] = [];
  const suffixes: Uint8Array[] = [new Uint8Array()];
  const known = new Map<string, number>([['', 0]]);
  // Indexed by depth: the state, the number of characters begun, and the depth after a closing quotation mark.
  const states: (DfaState | undefined)[] = [text];
  const begun: number[] = [0];
  const closedAt: (number | undefined)[] = [undefined];
  const path: number[] = [];
  for (let node = 0; node < nodes; node++) {
    idsBefore[node] = ids.length;
    closingBefore[node] = closing.length;
    const [depth, byte] = [trie.depths[node] as number, trie.bytes[node] as number];
    path.length = depth;
    path.push(byte);
    const before = states[depth];
    const isClosed = closedAt[depth] !== undefined;
    const closes = !isClosed && before?.accepting === true && byte === QUOTATION_MARK;
    closedAt[depth + 1] = closes ? depth + 1 : closedAt[depth];
    states[depth + 1] = isClosed || closes ? undefined : before?.next(byte);
    begun[depth + 1] = (begun[depth] as number) + (before?.accepting && !closes ? 1 : 0);
    const start = closedAt[depth + 1];
    for (const id of trie.ids[node] as readonly number[]) {
      if (start !== undefined) {
        const bytes = Uint8Array.from(path.slice(start));
        const key = bytes.join();
        if (!known.has(key)) known.set(key, suffixes.push(bytes) - 1);
        closing.push({ id, characters: begun[start] as number, suffix: known.get(key) as number });
      } else if (states[depth + 1]) {
        allow(mask, id);
        ids.push(id);
        characters.push(begun[depth + 1] as number);
      }
    }
    isBoundary[node] = states[depth + 1]?.accepting ? 1 : 0;
  }
  idsBefore[nodes] = ids.length;
  closingBefore[nodes] = closing.length;
  return {
    mask,
    ids: Uint32Array.from(ids),
    characters: Uint16Array.from(characters),
    closing,
    idsBefore,
    closingBefore,
    isBoundary,
    suffixes: tokenTrie(suffixes.length, (index) => suffixes[index] as Uint8Array),
    suffixCount: suffixes.length,
  };
}

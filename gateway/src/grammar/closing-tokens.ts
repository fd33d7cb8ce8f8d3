import { NODE, type TokenTrie, tokenTrie } from './token-trie.ts';

const QUOTE = 0x22;

/**
 * Tokens that contain a quotation mark, sorted by the bytes after the mark. A token with several marks has an entry for
 * each of them. Many tokens have the same bytes after the mark, so a walk over these bytes is short.
 */
export interface ClosingTokens {
  /** Trie of the bytes after a mark. Its ids are positions in the list of entries, in ascending order. */
  readonly rests: TokenTrie;
  /** [entries] token of each entry. */
  readonly tokens: Uint32Array;
  /** Entries of a mark, keyed by the mark's node in the trie of the tokens. */
  readonly entries: ReadonlyMap<number, readonly number[]>;
}

/** @param bytesOf function that returns the bytes of a token */
export function closingTokens({ nodes, size, ids }: TokenTrie, bytesOf: (id: number) => Uint8Array): ClosingTokens {
  const found: { readonly node: number; readonly token: number; readonly rest: Uint8Array }[] = [];
  for (let node = 0; node < size; node++) {
    const at = node * NODE.size;
    const endAndByte = nodes[at + NODE.endAndByte] as number;
    if ((endAndByte & 0xff) !== QUOTE) continue;
    const length = ((nodes[at + NODE.depthAndCharacters] as number) >> 16) + 1;
    const to = nodes[(endAndByte >> 8) * NODE.size + NODE.idsBefore] as number;
    for (let i = nodes[at + NODE.idsBefore] as number; i < to; i++) {
      const token = ids[i] as number;
      found.push({ node, token, rest: bytesOf(token).subarray(length) });
    }
  }
  found.sort((a, b) => Buffer.compare(a.rest, b.rest));
  const entries = new Map<number, number[]>();
  for (const [entry, { node }] of found.entries()) {
    const known = entries.get(node);
    if (known) known.push(entry);
    else entries.set(node, [entry]);
  }
  const texts = found.map(({ rest: text }, id) => ({ id, text }));
  return {
    rests: tokenTrie(found.length, texts),
    tokens: Uint32Array.from(found, ({ token }) => token),
    entries,
  };
}

/**
 * The vocabulary by its tokens' bytes, so that what tokens have in common at their beginning is looked at once. Nodes are numbered from
 * 0 in the order of a depth-first walk, so that a walk is a loop: a node's first child is the next node, and `end` leads past all below it.
 */
export interface TokenTrie {
  readonly bytes: Uint8Array;
  /** Bytes before a node's own. */
  readonly depths: Uint16Array;
  readonly ends: Uint32Array;
  /** Tokens that end at a node. */
  readonly ids: readonly (readonly number[])[];
  /** Bytes of the longest token. */
  readonly longest: number;
}

const none: readonly number[] = [];

/** @param bytesOf a token's bytes; tokens without any, which are special ones, are left out */
export function tokenTrie(vocabulary: number, bytesOf: (id: number) => Uint8Array): TokenTrie {
  const tokens = Array.from({ length: vocabulary }, (_, id) => ({ id, spelt: bytesOf(id) }))
    .filter(({ spelt }) => spelt.length > 0)
    .sort((a, b) => Buffer.compare(a.spelt, b.spelt));
  const bytes: number[] = [];
  const depths: number[] = [];
  const ends: number[] = [];
  const ids: (readonly number[])[] = [];
  // nodes from the root to the last token's end
  const open: number[] = [];
  let last: Uint8Array = new Uint8Array();
  for (const { id, spelt } of tokens) {
    let common = 0;
    while (common < last.length && common < spelt.length && last[common] === spelt[common]) common++;
    for (const node of open.splice(common)) ends[node] = bytes.length;
    for (let depth = common; depth < spelt.length; depth++) {
      open.push(bytes.length);
      bytes.push(spelt[depth] as number);
      depths.push(depth);
      ids.push(none);
    }
    const node = open.at(-1) as number;
    ids[node] = [...(ids[node] as readonly number[]), id];
    last = spelt;
  }
  for (const node of open) ends[node] = bytes.length;
  const longest = tokens.reduce((most, { spelt }) => Math.max(most, spelt.length), 0);
  return {
    bytes: Uint8Array.from(bytes),
    depths: Uint16Array.from(depths),
    ends: Uint32Array.from(ends),
    ids,
    longest,
  };
}

/** The node after one more byte; undefined if no token goes on so. */
export function child(trie: TokenTrie, node: number | undefined, byte: number): number | undefined {
  const end = node === undefined ? trie.bytes.length : (trie.ends[node] as number);
  for (let at = node === undefined ? 0 : node + 1; at < end; at = trie.ends[at] as number) {
    if (trie.bytes[at] === byte) return at;
  }
  return undefined;
}

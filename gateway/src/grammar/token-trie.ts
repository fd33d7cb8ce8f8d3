/**
 * Trie of the bytes of all tokens, so that a walk examines shared prefixes only once. Nodes are numbered in depth-first
 * order, which makes the walk a loop: the first child of a node is the next node, and `ends` skips a subtree.
 */
export interface TokenTrie {
  /** [nodes] byte of the node. */
  readonly bytes: Uint8Array;
  /** [nodes] number of bytes before the node's byte. */
  readonly depths: Uint16Array;
  /** [nodes] first node after the subtree. */
  readonly ends: Uint32Array;
  /** [nodes] tokens that end at the node. */
  readonly ids: readonly (readonly number[])[];
  /** Length of the longest token in bytes. */
  readonly maxLength: number;
}

const none: readonly number[] = [];

/** @param bytesOf function that returns the bytes of a token, or no bytes for a special token, which the trie omits */
export function tokenTrie(size: number, bytesOf: (id: number) => Uint8Array): TokenTrie {
  const tokens = Array.from({ length: size }, (_, id) => ({ id, text: bytesOf(id) }))
    .filter(({ text }) => text.length > 0)
    .sort((a, b) => Buffer.compare(a.text, b.text));
  const bytes: number[] = [];
  const depths: number[] = [];
  const ends: number[] = [];
  const ids: (readonly number[])[] = [];
  // The path from the root to the end of the previous token.
  const path: number[] = [];
  let last: Uint8Array = new Uint8Array();
  for (const { id, text } of tokens) {
    let common = 0;
    while (common < last.length && common < text.length && last[common] === text[common]) common++;
    for (const node of path.splice(common)) ends[node] = bytes.length;
    for (let depth = common; depth < text.length; depth++) {
      path.push(bytes.length);
      bytes.push(text[depth] as number);
      depths.push(depth);
      ids.push(none);
    }
    const node = path.at(-1) as number;
    ids[node] = [...(ids[node] as readonly number[]), id];
    last = text;
  }
  for (const node of path) ends[node] = bytes.length;
  const maxLength = tokens.reduce((max, { text }) => Math.max(max, text.length), 0);
  return {
    bytes: Uint8Array.from(bytes),
    depths: Uint16Array.from(depths),
    ends: Uint32Array.from(ends),
    ids,
    maxLength,
  };
}

/**
 * Returns the child of a node (`undefined` is the root) for a byte, or undefined if no token continues with this byte.
 */
export function childNode(trie: TokenTrie, node: number | undefined, byte: number): number | undefined {
  const end = node === undefined ? trie.bytes.length : (trie.ends[node] as number);
  for (let at = node === undefined ? 0 : node + 1; at < end; at = trie.ends[at] as number) {
    if (trie.bytes[at] === byte) return at;
  }
  return undefined;
}

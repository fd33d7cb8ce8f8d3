/** The vocabulary by its tokens' bytes, so that what tokens have in common at their beginning is looked at once. */
export interface TrieNode {
  /** Ascending by byte. */
  readonly children: readonly (readonly [byte: number, node: TrieNode])[];
  /** Tokens that end here. */
  readonly ids: readonly number[];
}

interface Growing {
  readonly children: Map<number, Growing>;
  readonly ids: number[];
}

/** @param bytesOf a token's bytes; tokens without any, which are special ones, are left out */
export function tokenTrie(vocabulary: number, bytesOf: (id: number) => Uint8Array): TrieNode {
  const root: Growing = { children: new Map(), ids: [] };
  for (let id = 0; id < vocabulary; id++) {
    let node = root;
    for (const byte of bytesOf(id)) {
      let child = node.children.get(byte);
      if (!child) {
        child = { children: new Map(), ids: [] };
        node.children.set(byte, child);
      }
      node = child;
    }
    if (node !== root) node.ids.push(id);
  }
  return grown(root);
}

function grown({ children, ids }: Growing): TrieNode {
  const sorted = [...children].sort(([a], [b]) => a - b);
  return { children: sorted.map(([byte, child]) => [byte, grown(child)] as const), ids };
}

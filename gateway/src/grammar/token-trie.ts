import { boundary, classesOf, classify, OTHER, type Utf8Position } from './byte-classes.ts';
import { getOrCreate } from './get-or-create.ts';
import { allow, emptyMask } from './token-bits.ts';

/** Maximum length of a short token in bytes. Counters with a limit further away do not affect masks of short tokens. */
export const SHORT_LENGTH = 32;

/** Number of integers per node in `TokenTrie.nodes`, and their order. */
export const NODE = {
  size: 4,
  /** First node after the subtree, times 256, plus the byte of the node. */
  endAndByte: 0,
  /** Classes of the bytes below the node, see `byte-classes.ts`. 0 for a leaf. */
  classesBelow: 1,
  /** Number of tokens in `ids` before the tokens that end at the node. */
  idsBefore: 2,
  /** Number of bytes before the node, times 65536, plus the maximum number of characters below the node. */
  depthAndCharacters: 3,
} as const;

/**
 * Trie of the bytes of tokens, so that a walk examines shared prefixes only once. Nodes are numbered in depth-first
 * order, which makes the walk a loop: the first child of a node is the next node, and its end skips a subtree. The
 * tokens of a subtree are a range of `ids`.
 */
export interface TokenTrie {
  /** [nodes + 1, 4] data of each node, in the order of NODE. The data are contiguous, because a walk jumps. */
  readonly nodes: Int32Array;
  /** Number of nodes. */
  readonly size: number;
  /** [tokens] token ids in the order of their bytes. */
  readonly ids: Uint32Array;
  /** Mask of all tokens of the trie. */
  readonly mask: Uint8Array;
  /** Returns the mask of the tokens that have at most this number of characters. */
  readonly maskUpTo: (characters: number) => Uint8Array;
  /** Classes of the bytes of all tokens. */
  readonly classes: number;
  /** Length of the longest token in bytes. */
  readonly maxLength: number;
}

/** Tokens of a vocabulary. The tries omit special tokens, which have no bytes. */
export interface TokenTries {
  /** Short tokens of printable characters: nearly all tokens. */
  readonly plain: TokenTrie;
  /** Short tokens that contain a quotation mark, a backslash, a control character or invalid UTF-8. */
  readonly marked: TokenTrie;
  /** Tokens of more than SHORT_LENGTH bytes. They are few, and most consist of white space or form horizontal rules. */
  readonly long: TokenTrie;
}

/** Token of a trie. */
export interface TokenBytes {
  readonly id: number;
  readonly text: Uint8Array;
}

/** Returns the tries of a vocabulary. @param bytesOf function that returns no bytes for a special token */
export function tokenTries(size: number, bytesOf: (id: number) => Uint8Array): TokenTries {
  const kinds = { plain: [] as TokenBytes[], marked: [] as TokenBytes[], long: [] as TokenBytes[] };
  for (let id = 0; id < size; id++) {
    const text = bytesOf(id);
    if (text.length === 0) continue;
    const kind = text.length > SHORT_LENGTH ? 'long' : classesOf(text) & OTHER ? 'marked' : 'plain';
    kinds[kind].push({ id, text });
  }
  return {
    plain: tokenTrie(size, kinds.plain),
    marked: tokenTrie(size, kinds.marked),
    long: tokenTrie(size, kinds.long),
  };
}

/** Node under construction. */
interface Node {
  readonly index: number;
  readonly byte: number;
  readonly depth: number;
  readonly idsBefore: number;
  /** Class of the byte, and position in UTF-8 after it. */
  readonly bit: number;
  readonly after: Utf8Position | undefined;
  classesBelow: number;
  charactersBelow: number;
}

/** Returns the trie of tokens, which may have no bytes. */
export function tokenTrie(size: number, tokens: TokenBytes[]): TokenTrie {
  tokens.sort((a, b) => Buffer.compare(a.text, b.text));
  const bytes = tokens.reduce((sum, { text }) => sum + text.length, 0);
  // There is at most one node for each byte. The data are written when a node is complete, so that few objects exist.
  const data = new Int32Array((bytes + 1) * NODE.size);
  let nodes = 0;
  /** Path from the root to the end of the previous token. */
  const path: Node[] = [];
  let last: Uint8Array = new Uint8Array();
  const mask = emptyMask(size);
  /** Cuts the path to `depth` nodes. The removed nodes are complete, so their parents can include their data. */
  const leave = (depth: number) => {
    while (path.length > depth) {
      const node = path.pop() as Node;
      write(data, node, nodes);
      const parent = path.at(-1);
      if (!parent) continue;
      const characters = node.charactersBelow + (beginsCharacter(node.byte) ? 1 : 0);
      parent.classesBelow |= node.classesBelow | node.bit;
      parent.charactersBelow = Math.max(parent.charactersBelow, characters);
    }
  };
  for (const [order, { id, text }] of tokens.entries()) {
    allow(mask, id);
    let common = 0;
    while (common < last.length && common < text.length && last[common] === text[common]) common++;
    leave(common);
    for (let depth = common; depth < text.length; depth++) {
      const byte = text[depth] as number;
      const [bit, after] = classify(depth === 0 ? boundary : path.at(-1)?.after, byte);
      path.push({ index: nodes++, byte, depth, idsBefore: order, bit, after, classesBelow: 0, charactersBelow: 0 });
    }
    last = text;
  }
  leave(0);
  data[nodes * NODE.size + NODE.idsBefore] = tokens.length;
  const ids = Uint32Array.from(tokens, ({ id }) => id);
  return {
    nodes: data.slice(0, (nodes + 1) * NODE.size),
    size: nodes,
    ids,
    mask,
    maskUpTo: masksByLength(size, ids, tokens),
    classes: tokens.reduce((classes, { text }) => classes | classesOf(text), 0),
    maxLength: tokens.reduce((max, { text }) => Math.max(max, text.length), 0),
  };
}

/** Writes the data of a complete node, whose subtree ends before the node `end`. */
function write(data: Int32Array, node: Node, end: number): void {
  const { index, byte, depth, idsBefore, after, classesBelow, charactersBelow } = node;
  const at = index * NODE.size;
  data[at + NODE.endAndByte] = end * 256 + byte;
  // In the middle of a character, the classes below do not describe a text, because a text begins with a character.
  data[at + NODE.classesBelow] = classesBelow === 0 || after?.missing === 0 ? classesBelow : OTHER;
  data[at + NODE.idsBefore] = idsBefore;
  data[at + NODE.depthAndCharacters] = depth * 65536 + charactersBelow;
}

/** Returns a function that computes the mask of the tokens up to a length when needed, and caches it. */
function masksByLength(
  size: number,
  ids: Uint32Array,
  tokens: readonly TokenBytes[],
): (characters: number) => Uint8Array {
  const masks = new Map<number, Uint8Array>();
  // Computed in advance, because an answer waits while a mask is computed.
  const lengths = Uint16Array.from(tokens, ({ text }) => {
    let length = 0;
    for (const byte of text) if (beginsCharacter(byte)) length++;
    return length;
  });
  return (characters) =>
    getOrCreate(masks, characters, () => {
      const mask = emptyMask(size);
      for (let i = 0; i < ids.length; i++) if ((lengths[i] as number) <= characters) allow(mask, ids[i] as number);
      return mask;
    });
}

const beginsCharacter = (byte: number): boolean => byte < 0x80 || byte > 0xbf;

const endOf = ({ nodes }: TokenTrie, node: number): number =>
  (nodes[node * NODE.size + NODE.endAndByte] as number) >> 8;

const byteOf = ({ nodes }: TokenTrie, node: number): number =>
  (nodes[node * NODE.size + NODE.endAndByte] as number) & 0xff;

/** Returns the first token that ends at a node, or undefined if no token ends there. */
function tokenAt({ nodes, ids }: TokenTrie, node: number): number | undefined {
  const from = nodes[node * NODE.size + NODE.idsBefore] as number;
  const to = nodes[(node + 1) * NODE.size + NODE.idsBefore] as number;
  return from < to ? ids[from] : undefined;
}

/**
 * Returns the child of a node (`undefined` is the root) for a byte, or undefined if no token continues with this byte.
 */
function childNode(trie: TokenTrie, node: number | undefined, byte: number): number | undefined {
  const end = node === undefined ? trie.size : endOf(trie, node);
  for (let at = node === undefined ? 0 : node + 1; at < end; at = endOf(trie, at)) {
    if (byteOf(trie, at) === byte) return at;
  }
  return undefined;
}

/** Returns true if a trie has a token that begins with these bytes and is longer. */
export function hasLonger({ plain, marked, long }: TokenTries, prefix: Uint8Array): boolean {
  return [plain, marked, long].some((trie) => {
    let node: number | undefined;
    for (const byte of prefix) {
      node = childNode(trie, node, byte);
      if (node === undefined) return false;
    }
    return node !== undefined && endOf(trie, node) > node + 1;
  });
}

/** Returns the longest token that is a prefix of the bytes. Stops reading once no token has the next byte. */
export function longestPrefix({ plain, marked, long }: TokenTries, bytes: Iterable<number>): number | undefined {
  let paths: { readonly trie: TokenTrie; readonly node?: number }[] = [
    { trie: plain },
    { trie: marked },
    { trie: long },
  ];
  let longest: number | undefined;
  for (const byte of bytes) {
    paths = paths.flatMap(({ trie, node: parent }) => {
      const node = childNode(trie, parent, byte);
      if (node === undefined) return [];
      longest = tokenAt(trie, node) ?? longest;
      return { trie, node };
    });
    if (paths.length === 0) break;
  }
  return longest;
}

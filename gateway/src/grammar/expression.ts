/**
 * Grammar: a regular expression over bytes. References allow recursion (a JSON value inside a JSON value), which makes
 * the grammar context-free. Expressions are immutable and compared by identity.
 */
export type Expression = ByteSet | Sequence | Choice | Repeat | Reference | DfaState;

/** Matches one byte of a set. `bytes` are in ascending order. `has` has length 256. */
export type ByteSet = { readonly kind: 'bytes'; readonly bytes: readonly number[]; readonly has: readonly boolean[] };
export type Sequence = { readonly kind: 'sequence'; readonly parts: readonly Expression[] };
export type Choice = { readonly kind: 'choice'; readonly options: readonly Expression[] };
/** Matches `of` from `min` to `max` times. `max` may be Infinity. */
export type Repeat = { readonly kind: 'repeat'; readonly of: Expression; readonly min: number; readonly max: number };
/** Matches the target, which may contain this reference anywhere except at its beginning. */
export type Reference = { readonly kind: 'reference'; readonly target: () => Expression };

/** State of a hand-written DFA over bytes, for parts that would be large as expressions, such as number ranges. */
export interface DfaState {
  readonly kind: 'dfa';
  /** True if the bytes read so far are a complete match. More bytes may follow. */
  readonly accepting: boolean;
  /** Bytes that the state may allow, in ascending order. No other byte is allowed. */
  readonly bytes: readonly number[];
  /** Returns the state after one more byte, or undefined if the byte is not allowed. Equal states are one object. */
  readonly next: (byte: number) => DfaState | undefined;
  /** Returns a state that differs only in continuations of more than `length` bytes. Absent if not supported. */
  readonly truncated?: (length: number) => DfaState;
  /** Returns bytes that lead to the same state as `byte`. */
  readonly alike?: (byte: number) => readonly number[];
  /** Returns the state after every non-ASCII character, or undefined if these characters lead to several states. */
  readonly afterNonAscii?: () => DfaState | undefined;
  /** Frees the memory of all states of the DFA. States that are in use stay valid. */
  readonly forget?: () => void;
}

export const allBytes: readonly number[] = Array.from({ length: 256 }, (_, byte) => byte);

/** Matches any byte of these inclusive ranges. */
export function bytes(...ranges: readonly (readonly [from: number, to: number])[]): ByteSet {
  const has = allBytes.map((byte) => ranges.some(([from, to]) => byte >= from && byte <= to));
  return { kind: 'bytes', bytes: allBytes.filter((byte) => has[byte]), has };
}

/** Matches any byte of an inclusive range. Cached, because a grammar may contain many thousands of ranges. */
export function byteRange(from: number, to: number): ByteSet {
  const key = from * 256 + to;
  byteRanges[key] ??= bytes([from, to]);
  return byteRanges[key];
}

const byteRanges: ByteSet[] = [];

/** Matches exactly this text, in UTF-8. */
export function literal(text: string): Expression {
  return concat(Array.from(Buffer.from(text), (byte) => byteRange(byte, byte)));
}

/** Matches exactly one of the texts, in UTF-8. */
export function literalSet(texts: readonly string[]): Expression {
  return commonPrefix(
    texts.map((text) => Buffer.from(text)),
    0,
  );
}

/** Matches the rest of the texts, which all have the same first `length` bytes. */
function commonPrefix(texts: readonly Buffer[], length: number): DfaState {
  const known: (DfaState | undefined)[] = [];
  const next = (byte: number): DfaState | undefined => {
    const matching = texts.filter((text) => text[length] === byte);
    if (matching.length > 0) known[byte] ??= commonPrefix(matching, length + 1);
    return known[byte];
  };
  const bytes = [...new Set(texts.flatMap((text) => text[length] ?? []))].sort((a, b) => a - b);
  return { kind: 'dfa', accepting: texts.some((text) => text.length === length), bytes, next };
}

export function sequence(...parts: readonly Expression[]): Expression {
  return concat(parts);
}

/**
 * Concatenates parts. Takes an array, because a literal may have more bytes than a function call may have arguments.
 */
function concat(parts: readonly Expression[]): Expression {
  return parts.length === 1 ? (parts[0] as Expression) : { kind: 'sequence', parts };
}

/** Matches any of the options. Matches no text if there are no options. */
export function choice(...options: readonly Expression[]): Expression {
  return options.length === 1 ? (options[0] as Expression) : { kind: 'choice', options };
}

export function repeat(of: Expression, min = 0, max = Number.POSITIVE_INFINITY): Expression {
  return { kind: 'repeat', of, min, max };
}

export const optional = (of: Expression): Expression => repeat(of, 0, 1);
export const reference = (target: () => Expression): Reference => ({ kind: 'reference', target });

/** Returns a reference whose target is built only when a text reaches it. */
export function lazy(build: () => Expression): Reference {
  let built: Expression | undefined;
  return reference(() => {
    built ??= build();
    return built;
  });
}

export const empty: Expression = sequence();

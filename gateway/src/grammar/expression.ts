/**
 * What texts a grammar allows: regular expressions over bytes, with references for what contains itself (a JSON value in a JSON
 * value). Expressions are immutable and compared by identity.
 */
export type Expression = Bytes | Sequence | Choice | Repeat | Reference | Reader;

/** One byte of a set. */
export interface Bytes {
  readonly kind: 'bytes';
  readonly has: readonly boolean[];
}

export interface Sequence {
  readonly kind: 'sequence';
  readonly parts: readonly Expression[];
}

export interface Choice {
  readonly kind: 'choice';
  readonly options: readonly Expression[];
}

/** `of`, `least` to `most` times; `most` may be Infinity. */
export interface Repeat {
  readonly kind: 'repeat';
  readonly of: Expression;
  readonly least: number;
  readonly most: number;
}

/** An expression that may contain this one, though not at its beginning. */
export interface Reference {
  readonly kind: 'reference';
  readonly to: () => Expression;
}

/** A part that is read by hand, byte by byte, where an expression of the other kinds would be large. */
export interface Reader {
  readonly kind: 'reader';
  /** Whether what was read is a whole one; more may follow. */
  readonly complete: boolean;
  /** After one more byte, undefined where it may not come. The same reader, by identity, for all that goes on the same way. */
  readonly next: (byte: number) => Reader | undefined;
}

/** Every byte of any of these inclusive ranges. */
export function bytes(...ranges: readonly (readonly [from: number, to: number])[]): Bytes {
  const has = Array.from({ length: 256 }, (_, byte) => ranges.some(([from, to]) => byte >= from && byte <= to));
  return { kind: 'bytes', has };
}

/** Every byte of an inclusive range. The same object each time: a grammar may have many thousands of them. */
export function byteRange(from: number, to: number): Bytes {
  const key = from * 256 + to;
  byteRanges[key] ??= bytes([from, to]);
  return byteRanges[key];
}

const byteRanges: Bytes[] = [];

/** Exactly this text. */
export function literal(text: string): Expression {
  return inOrder(Array.from(Buffer.from(text), (byte) => byteRange(byte, byte)));
}

export function sequence(...parts: readonly Expression[]): Expression {
  return inOrder(parts);
}

/** The same for more parts than a call may have arguments. */
function inOrder(parts: readonly Expression[]): Expression {
  return parts.length === 1 ? (parts[0] as Expression) : { kind: 'sequence', parts };
}

/** No options: nothing matches. */
export function choice(...options: readonly Expression[]): Expression {
  return options.length === 1 ? (options[0] as Expression) : { kind: 'choice', options };
}

export function repeat(of: Expression, least = 0, most = Number.POSITIVE_INFINITY): Expression {
  return { kind: 'repeat', of, least, most };
}

export const optional = (of: Expression): Expression => repeat(of, 0, 1);
export const reference = (to: () => Expression): Reference => ({ kind: 'reference', to });
/** An expression that is made when a text gets there: made at once, all of them would be large. */
export function once(make: () => Expression): Reference {
  let made: Expression | undefined;
  return reference(() => {
    made ??= make();
    return made;
  });
}
/** The empty text. */
export const nothing: Expression = sequence();

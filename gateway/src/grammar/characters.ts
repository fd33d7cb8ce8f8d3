import { byteRange, choice, type Expression, empty, literal, sequence } from './expression.ts';

/** Set of Unicode code points, as inclusive ranges. */
export type Ranges = readonly (readonly [from: number, to: number])[];

export const anyCharacter: Ranges = [
  [0, 0xd7ff],
  [0xe000, 0x10ffff],
];

/** Sorts and merges ranges, and removes surrogates. */
export function normalize(ranges: Ranges): Ranges {
  const sorted = [...ranges].sort(([a], [b]) => a - b);
  const merged: [number, number][] = [];
  for (const [from, to] of sorted) {
    const last = merged.at(-1);
    if (last && from <= last[1] + 1) last[1] = Math.max(last[1], to);
    else merged.push([from, to]);
  }
  return merged.flatMap((range) => overlaps(range, anyCharacter));
}

/** Returns all characters outside the ranges. */
export function complement(ranges: Ranges): Ranges {
  const out: [number, number][] = [];
  let next = 0;
  for (const [from, to] of normalize(ranges)) {
    if (from > next) out.push([next, from - 1]);
    next = to + 1;
  }
  if (next <= 0x10ffff) out.push([next, 0x10ffff]);
  return normalize(out);
}

/** Returns the characters that both sets contain. */
export function intersection(a: Ranges, b: Ranges): Ranges {
  return a.flatMap((range) => overlaps(range, b));
}

function overlaps([from, to]: Ranges[number], ranges: Ranges): [number, number][] {
  return ranges
    .map(([low, high]): [number, number] => [Math.max(from, low), Math.min(to, high)])
    .filter(([low, high]) => low <= high);
}

/** Matches one character of the set, in UTF-8. */
export function utf8(ranges: Ranges): Expression {
  const parts = normalize(ranges).flatMap(([from, to]) =>
    BY_LENGTH.flatMap(([low, high]) => overlaps([from, to], [[low, high]])),
  );
  return choice(...parts.map(([from, to]) => encoded(from, to)));
}

/** Matches the characters of a range. Their UTF-8 encodings must all have the same length. */
function encoded(from: number, to: number): Expression {
  if (to < 0x80) return byteRange(from, to);
  const common = COMMON_RANGES.find((range) => range.from === from && range.to === to);
  return common?.expression ?? between(utf8Of(from), utf8Of(to));
}

/** Ranges of the code points with UTF-8 encodings of 1, 2, 3 and 4 bytes. */
const BY_LENGTH = [
  [0, 0x7f],
  [0x80, 0x7ff],
  [0x800, 0xffff],
  [0x10000, 0x10ffff],
] as const;

const utf8Of = (codePoint: number): readonly number[] => [...Buffer.from(String.fromCodePoint(codePoint))];

/**
 * Matches all UTF-8 sequences from `from` to `to`, which have the same length. After a first byte strictly between the
 * first bytes of `from` and `to`, any continuation bytes are allowed.
 */
function between(from: readonly number[], to: readonly number[]): Expression {
  const [first, last] = [from[0], to[0]];
  if (first === undefined || last === undefined) return empty;
  const [fromRest, toRest] = [from.slice(1), to.slice(1)];
  const [lowest, highest] = [fromRest.map(() => 0x80), fromRest.map(() => 0xbf)];
  if (first === last) return sequence(byteRange(first, first), between(fromRest, toRest));
  const isLowest = fromRest.every((byte, i) => byte === lowest[i]);
  const isHighest = toRest.every((byte, i) => byte === highest[i]);
  const [low, high] = [isLowest ? first : first + 1, isHighest ? last : last - 1];
  return choice(
    ...(isLowest ? [] : [sequence(byteRange(first, first), between(fromRest, highest))]),
    ...(low <= high ? [sequence(byteRange(low, high), between(lowest, highest))] : []),
    ...(isHighest ? [] : [sequence(byteRange(last, last), between(lowest, toRest))]),
  );
}

/**
 * Shared expressions for ranges that most character classes contain, because a schema may have ten thousand classes.
 */
const COMMON_RANGES = (
  [
    [0x80, 0x7ff],
    [0x800, 0xd7ff],
    [0xe000, 0xffff],
    [0x10000, 0x10ffff],
  ] as const
).map(([from, to]) => ({ from, to, expression: between(utf8Of(from), utf8Of(to)) }));

/** Matches one character of the set inside a JSON string, with the escapes that JSON.stringify writes. */
export function inJsonString(ranges: Ranges): Expression {
  const characters = normalize(ranges);
  const escapes = JSON_ESCAPES.filter(({ code }) => characters.some(([from, to]) => code >= from && code <= to));
  return choice(utf8(intersection(characters, plainCharacters)), ...escapes.map(({ escaped }) => escaped));
}

/** Characters that need no escape in a JSON string. */
export const plainCharacters: Ranges = complement([
  [0, 0x1f],
  [0x22, 0x22],
  [0x5c, 0x5c],
]);
const JSON_ESCAPES = [...Array.from({ length: 0x20 }, (_, code) => code), 0x22, 0x5c].map((code) => {
  return { code, escaped: literal(JSON.stringify(String.fromCodePoint(code)).slice(1, -1)) };
});

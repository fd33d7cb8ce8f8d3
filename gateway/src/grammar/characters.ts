import { byteRange, choice, type Expression, literal, nothing, sequence } from './expression.ts';

/** Inclusive ranges of Unicode code points. */
export type Ranges = readonly (readonly [from: number, to: number])[];

export const anyCharacter: Ranges = [
  [0, 0xd7ff],
  [0xe000, 0x10ffff],
];

/** The ranges' union, ascending, without surrogates. */
export function normal(ranges: Ranges): Ranges {
  const sorted = [...ranges].sort(([a], [b]) => a - b);
  const merged: [number, number][] = [];
  for (const [from, to] of sorted) {
    const last = merged.at(-1);
    if (last && from <= last[1] + 1) last[1] = Math.max(last[1], to);
    else merged.push([from, to]);
  }
  return merged.flatMap((range) => overlaps(range, anyCharacter));
}

/** All characters but these. */
export function complement(ranges: Ranges): Ranges {
  const out: [number, number][] = [];
  let next = 0;
  for (const [from, to] of normal(ranges)) {
    if (from > next) out.push([next, from - 1]);
    next = to + 1;
  }
  if (next <= 0x10ffff) out.push([next, 0x10ffff]);
  return normal(out);
}

/** What both have. */
export function intersection(a: Ranges, b: Ranges): Ranges {
  return a.flatMap((range) => overlaps(range, b));
}

function overlaps([from, to]: Ranges[number], ranges: Ranges): [number, number][] {
  return ranges
    .map(([low, high]): [number, number] => [Math.max(from, low), Math.min(to, high)])
    .filter(([low, high]) => low <= high);
}

/** One character of any of the ranges in UTF-8. */
export function utf8(ranges: Ranges): Expression {
  const parts = normal(ranges).flatMap(([from, to]) =>
    LENGTHS.flatMap(([low, high]) => overlaps([from, to], [[low, high]])),
  );
  return choice(...parts.map(([from, to]) => spelt(from, to)));
}

/** Characters of one length of UTF-8. */
function spelt(from: number, to: number): Expression {
  if (to < 0x80) return byteRange(from, to);
  const whole = WHOLE.find((range) => range.from === from && range.to === to);
  return whole?.expression ?? between(utf8Of(from), utf8Of(to));
}

/** Code points by the length of their UTF-8, 1 to 4 bytes. */
const LENGTHS = [
  [0, 0x7f],
  [0x80, 0x7ff],
  [0x800, 0xffff],
  [0x10000, 0x10ffff],
] as const;

const utf8Of = (codePoint: number): readonly number[] => [...Buffer.from(String.fromCodePoint(codePoint))];

/** All continuations from one byte sequence to another of the same length: first bytes in between may be followed by any. */
function between(from: readonly number[], to: readonly number[]): Expression {
  const [first, last] = [from[0], to[0]];
  if (first === undefined || last === undefined) return nothing;
  const [fromRest, toRest] = [from.slice(1), to.slice(1)];
  const [least, most] = [fromRest.map(() => 0x80), fromRest.map(() => 0xbf)];
  if (first === last) return sequence(byteRange(first, first), between(fromRest, toRest));
  const isLeast = fromRest.every((byte, i) => byte === least[i]);
  const isMost = toRest.every((byte, i) => byte === most[i]);
  const [low, high] = [isLeast ? first : first + 1, isMost ? last : last - 1];
  return choice(
    ...(isLeast ? [] : [sequence(byteRange(first, first), between(fromRest, most))]),
    ...(low <= high ? [sequence(byteRange(low, high), between(least, most))] : []),
    ...(isMost ? [] : [sequence(byteRange(last, last), between(least, toRest))]),
  );
}

/** What nearly every class has whole beyond ASCII, made once: a schema may have ten thousand classes. */
const WHOLE = (
  [
    [0x80, 0x7ff],
    [0x800, 0xd7ff],
    [0xe000, 0xffff],
    [0x10000, 0x10ffff],
  ] as const
).map(([from, to]) => ({ from, to, expression: between(utf8Of(from), utf8Of(to)) }));

/** How JSON spells a character of the ranges inside a string; in one way, the usual one. */
export function inJsonString(ranges: Ranges): Expression {
  const characters = normal(ranges);
  const escaped = ESCAPED_IN_JSON.filter(({ code }) => characters.some(([from, to]) => code >= from && code <= to));
  return choice(utf8(intersection(characters, plainCharacters)), ...escaped.map(({ spelt }) => spelt));
}

/** Characters that stand for themselves in a JSON string. */
export const plainCharacters: Ranges = complement([
  [0, 0x1f],
  [0x22, 0x22],
  [0x5c, 0x5c],
]);
const ESCAPED_IN_JSON = [...Array.from({ length: 0x20 }, (_, code) => code), 0x22, 0x5c].map((code) => {
  return { code, spelt: literal(JSON.stringify(String.fromCodePoint(code)).slice(1, -1)) };
});

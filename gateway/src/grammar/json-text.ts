import { complement, intersection, plainCharacters, utf8 } from './characters.ts';
import {
  bytes,
  choice,
  type Expression,
  literal,
  nothing,
  once,
  optional,
  reference,
  repeat,
  sequence,
} from './expression.ts';

/** The parts of JSON texts (RFC 8259). */

/**
 * Space between JSON's marks: none, one, or a line break with up to 20 spaces. Bounded, as a model that has lost its way would otherwise make space until
 * its tokens are used up.
 */
export const space: Expression = choice(
  nothing,
  literal(' '),
  sequence(literal('\n'), repeat(bytes([0x20, 0x20]), 0, 20)),
);

const hex = bytes([0x30, 0x39], [0x41, 0x46], [0x61, 0x66]);
const escaped = sequence(
  literal('\\'),
  choice(
    bytes(...Array.from('"\\/bfnrt', (c): [number, number] => [c.charCodeAt(0), c.charCodeAt(0)])),
    // no surrogates: an escaped half alone is no character
    sequence(literal('u'), bytes([0x30, 0x39], [0x41, 0x43], [0x45, 0x46], [0x61, 0x63], [0x65, 0x66]), hex, hex, hex),
    sequence(literal('u'), bytes([0x44, 0x44], [0x64, 0x64]), bytes([0x30, 0x37]), hex, hex),
  ),
);
const unescaped = utf8(plainCharacters);
const character = choice(unescaped, escaped);

/** A string of so many characters. */
export function jsonString(least = 0, most = Number.POSITIVE_INFINITY): Expression {
  return sequence(literal('"'), repeat(character, least, most), literal('"'));
}

const digit = bytes([0x30, 0x39]);
export const jsonInteger: Expression = sequence(
  optional(literal('-')),
  choice(literal('0'), sequence(bytes([0x31, 0x39]), repeat(digit))),
);
export const jsonNumber: Expression = sequence(
  jsonInteger,
  optional(sequence(literal('.'), repeat(digit, 1))),
  optional(sequence(bytes([0x45, 0x45], [0x65, 0x65]), optional(bytes([0x2b, 0x2b], [0x2d, 0x2d])), repeat(digit, 1))),
);
export const jsonBoolean: Expression = choice(literal('true'), literal('false'));
export const jsonNull: Expression = literal('null');

/** `open`, the items with commas between them, `close`. */
export function enclosed(open: string, items: Expression, close: string): Expression {
  return sequence(literal(open), space, items, space, literal(close));
}

export const comma: Expression = sequence(literal(','), space);
const colon = sequence(literal(':'), space);

/** One or more, with commas between them. */
export function list(item: Expression, least = 1, most = Number.POSITIVE_INFINITY): Expression {
  return most === 0 ? nothing : sequence(item, repeat(sequence(comma, item), least - 1, most - 1));
}

export function member(key: Expression, value: Expression): Expression {
  return sequence(key, colon, value);
}

/** An object of members with whatever keys. */
export const jsonObject: Expression = reference(() => anyObject);
/** Any JSON value. */
export const jsonValue: Expression = reference(() => anyValue);

/** The same, or nothing between the two. */
export function emptyOr(open: string, items: Expression, close: string): Expression {
  return choice(literal(open + close), enclosed(open, items, close));
}

const anyObject = emptyOr('{', list(member(jsonString(), jsonValue)), '}');
const anyArray = emptyOr('[', list(jsonValue), ']');
const anyValue = choice(anyObject, anyArray, jsonString(), jsonNumber, jsonBoolean, jsonNull);

/** A string that is none of these and is spelt without escapes: a further key of an object. */
export function otherString(excluded: readonly string[]): Expression {
  const texts = excluded.map((text) => [...text]);
  return sequence(
    literal('"'),
    once(() => otherRest(texts, 0)),
  );
}

/** What follows up to the closing mark after so many characters, which all of the texts begin with, and makes none of them. */
function otherRest(texts: readonly (readonly string[])[], at: number): Expression {
  const beginnings = new Set(texts.flatMap((text) => text[at] ?? []));
  const points = [...beginnings].map((first) => first.codePointAt(0) as number);
  const others = intersection(plainCharacters, complement(points.map((point) => [point, point])));
  return choice(
    ...(texts.some((text) => text.length === at) ? [] : [literal('"')]),
    sequence(utf8(others), repeat(unescaped), literal('"')),
    ...[...beginnings].map((first) => {
      const going = texts.filter((text) => text[at] === first);
      return sequence(
        literal(first),
        once(() => otherRest(going, at + 1)),
      );
    }),
  );
}

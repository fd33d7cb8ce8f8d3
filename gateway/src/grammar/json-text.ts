import { complement, intersection, plainCharacters, utf8 } from './characters.ts';
import {
  bytes,
  choice,
  type Expression,
  empty,
  lazy,
  literal,
  optional,
  reference,
  repeat,
  sequence,
} from './expression.ts';

/**
 * White space between tokens of JSON (RFC 8259): none, one space, or a line break with up to 20 spaces. The limit
 * prevents a confused model from generating white space until max_tokens.
 */
const space = choice(empty, literal(' '), sequence(literal('\n'), repeat(bytes([0x20, 0x20]), 0, 20)));

const hex = bytes([0x30, 0x39], [0x41, 0x46], [0x61, 0x66]);
const escaped = sequence(
  literal('\\'),
  choice(
    bytes(...Array.from('"\\/bfnrt', (c): [number, number] => [c.charCodeAt(0), c.charCodeAt(0)])),
    // Surrogates are excluded, because an escaped lone surrogate is not a character.
    sequence(literal('u'), bytes([0x30, 0x39], [0x41, 0x43], [0x45, 0x46], [0x61, 0x63], [0x65, 0x66]), hex, hex, hex),
    sequence(literal('u'), bytes([0x44, 0x44], [0x64, 0x64]), bytes([0x30, 0x37]), hex, hex),
  ),
);
const unescaped = utf8(plainCharacters);
const character = choice(unescaped, escaped);

/** Matches a string of `min` to `max` characters. */
export function jsonString(min = 0, max = Number.POSITIVE_INFINITY): Expression {
  return sequence(literal('"'), repeat(character, min, max), literal('"'));
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

const comma = sequence(literal(','), space);
const colon = sequence(literal(':'), space);

/** Matches `min` to `max` items, separated by commas. `min` must be at least 1 unless `max` is 0. */
export function list(item: Expression, min = 1, max = Number.POSITIVE_INFINITY): Expression {
  return max === 0 ? empty : sequence(item, repeat(sequence(comma, item), min - 1, max - 1));
}

export function member(key: Expression, value: Expression): Expression {
  return sequence(key, colon, value);
}

function enclosed(open: string, items: Expression, close: string): Expression {
  return sequence(literal(open), space, items, space, literal(close));
}

function emptyOrEnclosed(open: string, items: Expression, close: string): Expression {
  return choice(literal(open + close), enclosed(open, items, close));
}

/** Matches an object with the known members in order, each required or optional, and then the `further` members. */
export function objectOf(
  known: readonly { readonly member: Expression; readonly required: boolean }[],
  further: Expression | undefined,
): Expression {
  // The grammar of the remaining members: `first` at the beginning of the object, `later` after another member.
  let first = further ?? empty;
  let later = further ? optional(sequence(comma, further)) : empty;
  for (const { member, required } of known.toReversed()) {
    const [here, after] = [sequence(member, later), sequence(comma, member, later)];
    first = required ? here : choice(here, first);
    later = required ? after : choice(after, later);
  }
  const around = known.some(({ required }) => required) ? enclosed : emptyOrEnclosed;
  return around('{', first, '}');
}

/** Matches an array of `min` to `max` items: one item for each entry of `first`, then any number of `rest`. */
export function arrayOf(
  first: readonly Expression[],
  rest: Expression | undefined,
  min: number,
  max: number,
): Expression {
  const from = (index: number): Expression => {
    const item = first[index];
    const further = rest && list(rest, Math.max(1, min - index), max - index);
    return item ? sequence(item, after(index + 1)) : (further ?? empty);
  };
  const after = (index: number): Expression => {
    if (index >= max || (!first[index] && !rest)) return empty;
    const more = sequence(comma, from(index));
    return index >= min ? choice(empty, more) : more;
  };
  if (max === 0 || (first.length === 0 && !rest)) return literal('[]');
  return (min === 0 ? emptyOrEnclosed : enclosed)('[', from(0), ']');
}

export const jsonObject: Expression = reference(() => anyObject);
export const jsonValue: Expression = reference(() => anyValue);

const anyObject = emptyOrEnclosed('{', list(member(jsonString(), jsonValue)), '}');
const anyArray = emptyOrEnclosed('[', list(jsonValue), ']');
const anyValue = choice(anyObject, anyArray, jsonString(), jsonNumber, jsonBoolean, jsonNull);

/**
 * Matches a string without escapes that is not in `excluded`, for the name of a property that the schema does not name.
 */
export function otherString(excluded: readonly string[]): Expression {
  const texts = excluded.map((text) => [...text]);
  return sequence(
    literal('"'),
    lazy(() => otherSuffix(texts, 0)),
  );
}

/** Matches the rest of such a string and its closing quote, after `length` characters with which all `texts` begin. */
function otherSuffix(texts: readonly (readonly string[])[], length: number): Expression {
  const following = new Set(texts.flatMap((text) => text[length] ?? []));
  const points = [...following].map((next) => next.codePointAt(0) as number);
  const others = intersection(plainCharacters, complement(points.map((point) => [point, point])));
  return choice(
    ...(texts.some((text) => text.length === length) ? [] : [literal('"')]),
    sequence(utf8(others), repeat(unescaped), literal('"')),
    ...[...following].map((next) => {
      const matching = texts.filter((text) => text[length] === next);
      return sequence(
        literal(next),
        lazy(() => otherSuffix(matching, length + 1)),
      );
    }),
  );
}

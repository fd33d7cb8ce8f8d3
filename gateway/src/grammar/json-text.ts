import { determinize } from './determinize.ts';
import {
  bytes,
  choice,
  type Expression,
  empty,
  literal,
  literalSet,
  optional,
  reference,
  repeat,
  sequence,
} from './expression.ts';
import { entriesOf, scalarText, valueType } from './schema/values.ts';
import { CharacterDfa, type CharacterState } from './strings/character-dfa.ts';
import { encodedState } from './strings/encoded.ts';
import { Terms } from './strings/terms.ts';

const blank = literal(' ');
const indentation = choice(repeat(blank, 0, 40), repeat(literal('\t'), 1, 10));
/**
 * White space between tokens of JSON (RFC 8259), as models write it: a blank, or a line break and indentation. The
 * limits prevent a confused model from generating white space until max_tokens.
 */
const space = determinize(choice(optional(blank), sequence(optional(literal('\r')), literal('\n'), indentation)));

const terms = new Terms();
const anyText = new CharacterDfa(terms.anything, terms);

/** Matches a string whose characters lead from the state to a match. */
export function quoted(state: CharacterState): Expression {
  return sequence(literal('"'), encodedState(state, 'json'), literal('"'));
}

/** Matches a string of `min` to `max` characters. */
export function jsonString(min = 0, max = Number.POSITIVE_INFINITY): Expression {
  return quoted(anyText.state(terms.repeat(terms.character, min, max)));
}

const digit = bytes([0x30, 0x39]);
const integer = sequence(optional(literal('-')), choice(literal('0'), sequence(bytes([0x31, 0x39]), repeat(digit))));
const fraction = sequence(literal('.'), repeat(digit, 1));
const sign = bytes([0x2b, 0x2b], [0x2d, 0x2d]);
const exponent = sequence(bytes([0x45, 0x45], [0x65, 0x65]), optional(sign), repeat(digit, 1));
export const jsonInteger: Expression = determinize(integer);
export const jsonNumber: Expression = determinize(sequence(integer, optional(fraction), optional(exponent)));
export const jsonBoolean: Expression = literalSet(['true', 'false']);
export const jsonNull: Expression = literal('null');

const comma = sequence(optional(blank), literal(','), space);
const colon = sequence(optional(blank), literal(':'), space);

/** Matches one value, with white space in arrays and objects. Strings are spelled as JSON.stringify spells them. */
export function jsonText(value: unknown): Expression {
  const type = valueType(value);
  if (type === 'array') return enclosed('[', joined((value as unknown[]).map(jsonText)), ']');
  if (type !== 'object') return literal(scalarText(value));
  const members = entriesOf(value as object).map(([name, each]) => member(jsonText(name), jsonText(each)));
  return enclosed('{', joined(members), '}');
}

/** Matches one of several values. */
export function jsonTexts(values: readonly unknown[]): Expression {
  const isNested = (value: unknown) => ['array', 'object'].includes(valueType(value));
  const texts = values.filter((value) => !isNested(value)).map(scalarText);
  return choice(...(texts.length > 0 ? [literalSet(texts)] : []), ...values.filter(isNested).map(jsonText));
}

const joined = (parts: readonly Expression[]): Expression =>
  sequence(...parts.flatMap((part, i) => (i === 0 ? [part] : [comma, part])));

/** Matches `min` to `max` items, separated by commas. `min` must be at least 1 unless `max` is 0. */
export function list(item: Expression, min = 1, max = Number.POSITIVE_INFINITY): Expression {
  return max === 0 ? empty : sequence(item, repeat(sequence(comma, item), min - 1, max - 1));
}

/** Matches up to `max` items, separated by commas. @param isLater true if an item precedes them */
export function optionalList(isLater: boolean, item: Expression, max = Number.POSITIVE_INFINITY): Expression {
  return isLater ? repeat(sequence(comma, item), 0, max) : choice(empty, list(item, 1, max));
}

/** Matches an item and then `rest`. @param isLater true if another item precedes this one */
export function itemThen(isLater: boolean, item: Expression, rest: Expression): Expression {
  return isLater ? sequence(comma, item, rest) : sequence(item, rest);
}

export function member(key: Expression, value: Expression): Expression {
  return sequence(key, colon, value);
}

function enclosed(open: string, items: Expression, close: string): Expression {
  return sequence(literal(open), space, items, space, literal(close));
}

/** Matches items in brackets, or only the brackets. */
function emptyOrEnclosed(open: string, items: Expression, close: string): Expression {
  return sequence(literal(open), space, choice(empty, sequence(items, space)), literal(close));
}

/** Member of an object. */
export interface ObjectMember {
  readonly member: Expression;
  readonly required: boolean;
}

/** Matches an object with the known members in order, each required or optional, and then `further` members. */
export function objectOf(known: readonly ObjectMember[], further: Expression | undefined): Expression {
  // The grammar of the remaining members: `first` at the beginning of the object, `later` after another member.
  let first = further ?? empty;
  let later = further ? optional(sequence(comma, further)) : empty;
  for (const { member, required } of known.toReversed()) {
    const [here, after] = [sequence(member, later), sequence(comma, member, later)];
    first = required ? here : choice(here, first);
    later = required ? after : choice(after, later);
  }
  return bracedMembers(
    first,
    known.some(({ required }) => required),
  );
}

/** Matches an object with these members. @param isFilled true if the object must not be empty */
export function bracedMembers(members: Expression, isFilled: boolean): Expression {
  return (isFilled ? enclosed : emptyOrEnclosed)('{', members, '}');
}

/** Matches an array with these items. @param isFilled true if the array must not be empty */
export function bracketedItems(items: Expression, isFilled: boolean): Expression {
  return (isFilled ? enclosed : emptyOrEnclosed)('[', items, ']');
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
  const items = max === 0 || (first.length === 0 && !rest) ? empty : from(0);
  return bracketedItems(items, min > 0);
}

export const jsonObject: Expression = reference(() => anyObject);
export const jsonValue: Expression = reference(() => anyValue);

const anyObject = emptyOrEnclosed('{', list(member(jsonString(), jsonValue)), '}');
const anyArray = emptyOrEnclosed('[', list(jsonValue), ']');
const anyValue = choice(anyObject, anyArray, jsonString(), jsonNumber, jsonBoolean, jsonNull);

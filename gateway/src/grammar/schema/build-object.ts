import { fieldError } from '@ptp/protocol/validation';
import { choice, type Expression, empty } from '../expression.ts';
import {
  bracedMembers,
  itemThen,
  jsonText,
  list,
  member,
  type ObjectMember,
  objectOf,
  optionalList,
  quoted,
} from '../json-text.ts';
import type { ObjectAlternative } from './alternatives.ts';
import type { Builder } from './build.ts';
import { knownNames, propertySchemas, regionsOf } from './plans.ts';

/** Maximum number of expressions for the members of an object with `minProperties` or `maxProperties`. */
const COUNTED_LIMIT = 100_000;

/**
 * Matches the objects of an alternative: known members in the order of the schema, then others. Returns undefined if
 * no object satisfies the alternative.
 */
export function objectExpression(object: ObjectAlternative, builder: Builder, at: string): Expression | undefined {
  const { schemas } = builder;
  const required = new Set(object.required);
  const built = builder.membersOf(object);
  const known: ObjectMember[] = [];
  for (const name of knownNames(object)) {
    // The value may contain the same object, which then builds this member too.
    if (!built.has(name)) built.set(name, memberOf(object, name, builder, at));
    const each = built.get(name);
    if (each) known.push(each);
    else if (required.has(name)) return undefined;
  }
  const others = regionsOf(object, schemas).map(({ names, values }) =>
    member(quoted(names), builder.value(values, `${at}.additionalProperties`)),
  );
  const further = others.length > 0 ? choice(...others) : undefined;
  const { min, max } = object;
  if (min === 0 && max === Number.POSITIVE_INFINITY) return objectOf(known, further && list(further));
  if (
    known.length * Math.min(known.length + 1, Math.max(min, max === Number.POSITIVE_INFINITY ? 0 : max)) >
    COUNTED_LIMIT
  ) {
    throw fieldError(`${at}.minProperties`, 'is not supported with this number of properties');
  }
  // Two further members may have the same name, so all of them count as one towards the minimum.
  if (min > known.length + (further ? 1 : 0)) {
    const problem = `must be at most ${known.length + 1}, the number of named properties plus 1, got ${min}`;
    if (further) throw fieldError(`${at}.minProperties`, problem);
    return undefined;
  }
  return countedObject(known, further, min, max);
}

/** Returns a known member, or undefined if it cannot have a value. */
function memberOf(object: ObjectAlternative, name: string, builder: Builder, at: string): ObjectMember | undefined {
  const values = propertySchemas(object, name, builder.schemas);
  if (values === undefined || builder.schemas.isEmpty(values)) return undefined;
  const value = builder.value(values, `${at}.properties.${name}`);
  return { member: member(jsonText(name), value), required: object.required.includes(name) };
}

/** Matches the objects with `min` to `max` members. */
function countedObject(
  known: readonly ObjectMember[],
  further: Expression | undefined,
  min: number,
  max: number,
): Expression | undefined {
  const rests = new Map<string, Expression | undefined>();
  const most = Math.min(max, known.length + 1);
  const cap = Math.max(Math.min(min, most), max === Number.POSITIVE_INFINITY ? 1 : most, 1);
  const rest = (index: number, count: number): Expression | undefined => {
    const key = `${index} ${count}`;
    if (!rests.has(key)) rests.set(key, compute(index, count));
    return rests.get(key);
  };
  // Bottom up, because there may be too many members for a recursion.
  for (let index = known.length; index >= 0; index--) for (let count = 0; count <= cap; count++) rest(index, count);
  const members = rest(0, 0);
  return members && bracedMembers(members, min > 0 || known.some(({ required }) => required));

  function compute(index: number, count: number): Expression | undefined {
    const entry = known[index];
    if (!entry) return last(count);
    const after = count < max ? rest(index + 1, Math.min(count + 1, cap)) : undefined;
    const here = after && itemThen(count > 0, entry.member, after);
    const without = entry.required ? undefined : rest(index + 1, count);
    return here && without ? choice(here, without) : (here ?? without);
  }

  function last(count: number): Expression | undefined {
    const most = max - count;
    if (count >= min) return further && most > 0 ? optionalList(count > 0, further, most) : empty;
    if (count < min - 1 || !further || most < 1) return undefined;
    return itemThen(count > 0, list(further, 1, most), empty);
  }
}

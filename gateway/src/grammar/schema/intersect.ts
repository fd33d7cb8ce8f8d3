import {
  type Alternative,
  type ArrayAlternative,
  type Conjunction,
  itemSchemas,
  type Limit,
  type NumberAlternative,
  type ObjectAlternative,
  type StringAlternative,
} from './alternatives.ts';
import { commonMultiple, compareDecimals } from './decimal.ts';
import { valueKey } from './values.ts';

/** Returns true if an enumerated value satisfies an alternative. */
export type Satisfies = (value: unknown, alternative: Alternative) => boolean;

/** Returns the values that satisfy both alternatives, or undefined if there is obviously no such value. */
export function intersect(a: Alternative, b: Alternative, satisfies: Satisfies): Alternative | undefined {
  if (a.type === 'values') {
    const keys = b.type === 'values' ? new Set(b.values.map(valueKey)) : undefined;
    const values = a.values.filter((value) => (keys ? keys.has(valueKey(value)) : satisfies(value, b)));
    return values.length > 0 ? { type: 'values', values } : undefined;
  }
  if (b.type === 'values') return intersect(b, a, satisfies);
  if (a.type === 'number' && b.type === 'number') return bothNumbers(a, b);
  if (a.type === 'string' && b.type === 'string') return bothStrings(a, b);
  if (a.type === 'array' && b.type === 'array') return bothArrays(a, b);
  if (a.type === 'object' && b.type === 'object') return bothObjects(a, b);
  return a.type === b.type ? a : undefined;
}

/** Returns the alternatives with all enumerated values in one, so that enumerations are intersected in linear time. */
export function withMergedValues(alternatives: readonly Alternative[]): readonly Alternative[] {
  const enumerated = alternatives.filter((each) => each.type === 'values');
  if (enumerated.length < 2) return alternatives;
  const values = new Map(enumerated.flatMap(({ values }) => values.map((value) => [valueKey(value), value])));
  const others = alternatives.filter(({ type }) => type !== 'values');
  return [{ type: 'values', values: [...values.values()] }, ...others];
}

function bothNumbers(a: NumberAlternative, b: NumberAlternative): NumberAlternative {
  const factors = [a.multipleOf, b.multipleOf].filter((factor) => factor !== undefined);
  return {
    type: 'number',
    integer: a.integer || b.integer,
    min: tighter(a.min, b.min, 1),
    max: tighter(a.max, b.max, -1),
    multipleOf: factors.length === 2 ? factors.reduce(commonMultiple) : factors[0],
  };
}

/** Returns the limit that excludes more numbers. @param sign 1 for lower limits, -1 for upper limits */
export function tighter(a: Limit | undefined, b: Limit | undefined, sign: number): Limit | undefined {
  if (!a || !b) return a ?? b;
  const order = compareDecimals(a.value, b.value) * sign;
  if (order === 0) return a.exclusive ? a : b;
  return order > 0 ? a : b;
}

function bothStrings(a: StringAlternative, b: StringAlternative): StringAlternative | undefined {
  const [min, max] = [Math.max(a.min, b.min), Math.min(a.max, b.max)];
  if (min > max) return undefined;
  const excluded = [...new Set([...a.excluded, ...b.excluded])];
  const known = new Set(a.patterns.map(({ source, negated }) => `${negated} ${source}`));
  const patterns = [...a.patterns, ...b.patterns.filter(({ source, negated }) => !known.has(`${negated} ${source}`))];
  return { type: 'string', min, max, patterns, excluded };
}

function bothArrays(a: ArrayAlternative, b: ArrayAlternative): ArrayAlternative | undefined {
  const [min, max] = [Math.max(a.min, b.min), Math.min(a.max, b.max)];
  if (min > max) return undefined;
  const length = Math.max(a.prefix.length, b.prefix.length);
  const prefix = Array.from({ length }, (_, i) => joined(itemSchemas(a, i), itemSchemas(b, i)));
  const items = a.items || b.items ? joined(a.items ?? [], b.items ?? []) : undefined;
  const contains = [...a.contains, ...b.contains];
  const declared = Math.max(a.declared, b.declared);
  return { type: 'array', prefix, declared, items, min, max, unique: a.unique || b.unique, contains, at: a.at || b.at };
}

function bothObjects(a: ObjectAlternative, b: ObjectAlternative): ObjectAlternative | undefined {
  const [min, max] = [Math.max(a.min, b.min), Math.min(a.max, b.max)];
  const required = [...new Set([...a.required, ...b.required])];
  if (min > max || required.length > max) return undefined;
  const scopes = [...new Set([...a.scopes, ...b.scopes])];
  return { type: 'object', scopes, required, min, max, names: joined(a.names, b.names), at: a.at || b.at };
}

/** Returns the schemas of all conjunctions without duplicates. */
export function joined(...conjunctions: readonly Conjunction[]): Conjunction {
  return [...new Set(conjunctions.flat())];
}

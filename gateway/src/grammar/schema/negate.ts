import {
  type Alternative,
  type ArrayAlternative,
  anyArray,
  anyNumber,
  anyObject,
  anyString,
  anything,
  type Conjunction,
  type NumberAlternative,
  type ObjectAlternative,
  type Scope,
  type StringAlternative,
  UnsupportedError,
} from './alternatives.ts';
import { compareDecimals, decimalOf } from './decimal.ts';
import { valueType } from './values.ts';

/** Returns the complement of a conjunction: one conjunction for each schema that a value may violate. */
export type Complements = (schemas: Conjunction) => Conjunction[];

/**
 * Returns the values that do not satisfy an alternative.
 *
 * @param nothing conjunction that no value satisfies
 * @throws UnsupportedError
 */
export function complementOf(
  alternative: Alternative,
  complements: Complements,
  nothing: Conjunction,
  at: string,
): Alternative[] {
  if (alternative.type === 'values') return withoutValues(alternative.values, at);
  const others = anything.filter(({ type }) => type !== alternative.type);
  switch (alternative.type) {
    case 'number':
      return [...others, ...otherNumbers(alternative, at)];
    case 'string':
      return [...others, ...otherStrings(alternative, at)];
    case 'array':
      return [...others, ...otherArrays(alternative, complements, at)];
    case 'object':
      return [...others, ...otherObjects(alternative, complements, nothing, at)];
    default:
      return others;
  }
}

function withoutValues(values: readonly unknown[], at: string): Alternative[] {
  const types = new Set(values.map(valueType));
  if (types.has('array') || types.has('object')) throw new UnsupportedError(at);
  const rest = anything.filter(({ type }) => !types.has(type as never));
  const booleans = [true, false].filter((value) => !values.includes(value));
  return [
    ...rest,
    ...(types.has('string') ? [{ ...anyString, excluded: values.filter((value) => typeof value === 'string') }] : []),
    ...(types.has('boolean') && booleans.length > 0 ? [{ type: 'values' as const, values: booleans }] : []),
    ...(types.has('number')
      ? numbersBetween(
          values.filter((value) => valueType(value) === 'number'),
          at,
        )
      : []),
  ];
}

function numbersBetween(values: readonly unknown[], at: string): NumberAlternative[] {
  const decimals = values.map((value) => {
    const decimal = decimalOf(value as number);
    if (!decimal) throw new UnsupportedError(at);
    return decimal;
  });
  const limits = decimals.sort(compareDecimals).map((value) => ({ value, exclusive: true }));
  return [undefined, ...limits].map((min, i) => ({ ...anyNumber, min, max: limits[i] }));
}

function otherNumbers({ integer, min, max, multipleOf }: NumberAlternative, at: string): NumberAlternative[] {
  if (integer || multipleOf) throw new UnsupportedError(at);
  return [
    ...(min ? [{ ...anyNumber, max: { ...min, exclusive: !min.exclusive } }] : []),
    ...(max ? [{ ...anyNumber, min: { ...max, exclusive: !max.exclusive } }] : []),
  ];
}

/** Returns the values of one type that are shorter than `min` or longer than `max`. */
function otherLengths<T extends StringAlternative | ArrayAlternative | ObjectAlternative>(
  any: T,
  min: number,
  max: number,
): T[] {
  return [
    ...(min > 0 ? [{ ...any, max: min - 1 }] : []),
    ...(max < Number.POSITIVE_INFINITY ? [{ ...any, min: max + 1 }] : []),
  ];
}

function otherStrings({ min, max, patterns, excluded }: StringAlternative, at: string): Alternative[] {
  if (patterns.some(({ isFormat }) => isFormat)) throw new UnsupportedError(at);
  return [
    ...otherLengths(anyString, min, max),
    ...patterns.map((pattern) => ({ ...anyString, patterns: [{ ...pattern, negated: !pattern.negated }] })),
    ...(excluded.length > 0 ? [{ type: 'values' as const, values: excluded }] : []),
  ];
}

function otherArrays(
  { prefix, items, min, max, unique, contains }: ArrayAlternative,
  complements: Complements,
  at: string,
): ArrayAlternative[] {
  const others = items ? complements(items) : [];
  if (unique || contains.length > 0) throw new UnsupportedError(at);
  // `contains` would also find a violating item in the prefix, which `items` does not restrict.
  if (others.length > 0 && prefix.length > 0) throw new UnsupportedError(at);
  return [
    ...otherLengths(anyArray, min, max),
    ...prefix.flatMap((item, i) =>
      complements(item).map((other) => ({
        ...anyArray,
        prefix: [...Array.from({ length: i }, () => []), other],
        min: i + 1,
      })),
    ),
    ...others.map((other) => ({ ...anyArray, contains: [other], min: 1 })),
  ];
}

function otherObjects(
  { scopes, required, min, max, names }: ObjectAlternative,
  complements: Complements,
  nothing: Conjunction,
  at: string,
): ObjectAlternative[] {
  const isOpen = ({ patterns, additional }: Scope) =>
    patterns.length === 0 && (additional === undefined || additional.length === 0);
  if (names.length > 0 || !scopes.every(isOpen)) throw new UnsupportedError(at);
  const withProperty = (name: string, values: Conjunction): Scope[] => [
    { properties: new Map([[name, values]]), patterns: [], additional: undefined, silent: true },
  ];
  return [
    ...otherLengths(anyObject, min, max),
    ...required.map((name) => ({ ...anyObject, scopes: withProperty(name, nothing) })),
    ...scopes.flatMap(({ properties }) =>
      [...properties].flatMap(([name, values]) =>
        complements(values).map((other) => ({
          ...anyObject,
          scopes: withProperty(name, other),
          required: [name],
        })),
      ),
    ),
  ];
}

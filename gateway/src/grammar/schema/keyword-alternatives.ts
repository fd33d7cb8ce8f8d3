import { fieldError } from '@ptp/protocol/validation';
import {
  type Alternative,
  type ArrayAlternative,
  anyArray,
  anyNumber,
  anyObject,
  anyString,
  anything,
  type Conjunction,
  type Item,
  type Limit,
  type NumberAlternative,
  type ObjectAlternative,
  type StringAlternative,
} from './alternatives.ts';
import { combinedAlternatives } from './combinators.ts';
import { type Decimal, decimalOf } from './decimal.ts';
import { formatPattern } from './formats.ts';
import { tighter } from './intersect.ts';
import { checkKeywords, type Schema, typesOf } from './keywords.ts';
import type { References } from './references.ts';
import { withoutUnevaluated } from './unevaluated.ts';
import { entriesOf } from './values.ts';

/** Operations on schemas and normal forms that the translation of keywords needs. */
export interface Applicators {
  readonly references: References;
  /** True if keywords next to `$ref` have no effect, as in draft 4 to 7. */
  readonly ignoresSiblings: boolean;
  item(schema: unknown, at: string): Item;
  conjunction(schema: unknown, at: string): Conjunction;
  complement(item: Item): Item;
  normal(schemas: Conjunction): readonly Alternative[];
  intersection(a: readonly Alternative[], b: readonly Alternative[], at: string): readonly Alternative[];
  /** Returns true if no value satisfies all schemas. */
  isEmpty(schemas: Conjunction): boolean;
}

/** Returns the alternatives of one schema. @throws PtpError `invalid_argument`, naming the keyword */
export function keywordAlternatives({ schema: source, at }: Item, to: Applicators): readonly Alternative[] {
  if (source === true) return anything;
  if (source === false) return [];
  const schema = checkKeywords(source, at);
  if (schema.$ref !== undefined && to.ignoresSiblings)
    return combinedAlternatives({ $ref: schema.$ref }, source, at, to);
  const types = typesOf(schema);
  const typed = [
    ...(types.has('object') ? [objectAlternative(schema, at, to)] : []),
    ...(types.has('array') ? [arrayAlternative(schema, at, to)] : []),
    ...(types.has('string') ? [stringAlternative(schema, at)] : []),
    ...(types.has('number') || types.has('integer') ? [numberAlternative(schema, !types.has('number'), at)] : []),
    ...(types.has('boolean') ? [{ type: 'boolean' as const }] : []),
    ...(types.has('null') ? [{ type: 'null' as const }] : []),
  ];
  const isUnrestricted = typed.length === anything.length && typed.every((each, i) => each === anything[i]);
  const all = to.intersection(isUnrestricted ? anything : typed, combinedAlternatives(schema, source, at, to), at);
  return withoutUnevaluated(all, schema, at, to);
}

function objectAlternative(schema: Schema, at: string, to: Applicators): ObjectAlternative {
  const { properties, patternProperties, additionalProperties: additional, required = [], propertyNames } = schema;
  const { minProperties: min = 0, maxProperties: max = Number.POSITIVE_INFINITY } = schema;
  const hasScope = properties || patternProperties || additional !== undefined;
  if (
    !hasScope &&
    required.length === 0 &&
    propertyNames === undefined &&
    min === 0 &&
    max === Number.POSITIVE_INFINITY
  ) {
    return anyObject;
  }
  const scope = {
    properties: new Map(
      entriesOf(properties ?? {}).map(([name, value]) => [name, to.conjunction(value, `${at}.properties.${name}`)]),
    ),
    patterns: entriesOf(patternProperties ?? {}).map(([source, value]) => ({
      pattern: { source, negated: false, isFormat: false, at: `${at}.patternProperties` },
      values: to.conjunction(value, `${at}.patternProperties.${source}`),
    })),
    additional: additional === undefined ? undefined : to.conjunction(additional, `${at}.additionalProperties`),
    silent: false,
  };
  const names = propertyNames === undefined ? [] : to.conjunction(propertyNames, `${at}.propertyNames`);
  return { type: 'object', scopes: hasScope ? [scope] : [], required: [...new Set(required)], min, max, names, at };
}

function arrayAlternative(schema: Schema, at: string, to: Applicators): ArrayAlternative {
  const { items, prefixItems, additionalItems, minItems: min = 0, maxItems: max = Number.POSITIVE_INFINITY } = schema;
  // In draft 4 to 2019-09, an array in `items` is today's `prefixItems`, and `additionalItems` is `items`.
  const isTuple = Array.isArray(items);
  const first = isTuple ? items : (prefixItems ?? []);
  const prefixAt = `${at}.${isTuple ? 'items' : 'prefixItems'}`;
  const rest = isTuple ? additionalItems : items;
  const restAt = `${at}.${isTuple ? 'additionalItems' : 'items'}`;
  const { contains, minContains = 1, maxContains, uniqueItems: unique = false } = schema;
  if (contains !== undefined) {
    if (minContains > 1) throw fieldError(`${at}.minContains`, 'must be 0 or 1');
    if (maxContains !== undefined) throw fieldError(`${at}.maxContains`, 'is not supported');
  }
  const containing = contains === undefined || minContains === 0 ? [] : [to.conjunction(contains, `${at}.contains`)];
  if (first.length === 0 && rest === undefined && min === 0 && max === Number.POSITIVE_INFINITY && !unique) {
    if (containing.length === 0) return anyArray;
  }
  return {
    type: 'array',
    prefix: first.map((each, i) => to.conjunction(each, `${prefixAt}[${i}]`)),
    declared: first.length,
    items: rest === undefined ? undefined : to.conjunction(rest, restAt),
    min,
    max,
    unique,
    contains: containing,
    at,
  };
}

function stringAlternative(schema: Schema, at: string): StringAlternative {
  const { minLength: min = 0, maxLength: max = Number.POSITIVE_INFINITY, pattern, format } = schema;
  const formatted = format === undefined ? undefined : formatPattern(format);
  if (min === 0 && max === Number.POSITIVE_INFINITY && pattern === undefined && formatted === undefined)
    return anyString;
  const patterns = [
    ...(pattern === undefined ? [] : [{ source: pattern, negated: false, isFormat: false, at: `${at}.pattern` }]),
    ...(formatted === undefined ? [] : [{ source: formatted, negated: false, isFormat: true, at: `${at}.format` }]),
  ];
  return { type: 'string', min, max, patterns, excluded: [] };
}

function numberAlternative(schema: Schema, integer: boolean, at: string): NumberAlternative {
  const { minimum, maximum, exclusiveMinimum, exclusiveMaximum, multipleOf } = schema;
  const exact = (keyword: 'minimum' | 'maximum' | 'exclusiveMinimum' | 'exclusiveMaximum' | 'multipleOf'): Decimal => {
    const decimal = decimalOf((schema[keyword] ?? 0) as number);
    if (!decimal) throw fieldError(`${at}.${keyword}`, 'must be in the range of doubles');
    return decimal;
  };
  const limits = (keyword: 'minimum' | 'maximum', exclusive: 'exclusiveMinimum' | 'exclusiveMaximum'): Limit[] => {
    const isFlag = schema[exclusive] === undefined || typeof schema[exclusive] === 'boolean';
    const limit = (source: typeof keyword | typeof exclusive, isExclusive: boolean): Limit => ({
      value: certain(exact(source), schema[source], keyword === 'minimum'),
      exclusive: isExclusive,
    });
    return [
      ...(schema[keyword] === undefined ? [] : [limit(keyword, schema[exclusive] === true)]),
      ...(isFlag ? [] : [limit(exclusive, true)]),
    ];
  };
  const all = [minimum, maximum, exclusiveMinimum, exclusiveMaximum, multipleOf];
  if (!integer && all.every((each) => each === undefined)) return anyNumber;
  return {
    type: 'number',
    integer,
    min: limits('minimum', 'exclusiveMinimum').reduce<Limit | undefined>((a, b) => tighter(a, b, 1), undefined),
    max: limits('maximum', 'exclusiveMaximum').reduce<Limit | undefined>((a, b) => tighter(a, b, -1), undefined),
    multipleOf: multipleOf === undefined ? undefined : exact('multipleOf'),
  };
}

/**
 * Moves a limit that a parser may have rounded to a double inwards, past all numbers that round to this double. A
 * LongNumber is exact.
 */
function certain({ units, scale }: Decimal, source: unknown, isLower: boolean): Decimal {
  if (typeof source !== 'number' || !Number.isInteger(source) || Number.isSafeInteger(source)) return { units, scale };
  const half = 2n ** BigInt(Math.floor(Math.log2(Math.abs(source))) - 53);
  return { units: isLower ? units + half : units - half, scale };
}

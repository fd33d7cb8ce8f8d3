import { fieldError } from '@ptp/protocol/validation';
import type { CharacterState } from '../strings/character-dfa.ts';
import {
  type Alternative,
  type ArrayAlternative,
  anyString,
  type Conjunction,
  itemSchemas,
  type ObjectAlternative,
  type Pattern,
  type Scope,
  type StringAlternative,
} from './alternatives.ts';
import { joined } from './intersect.ts';
import type { Strings } from './strings.ts';
import { valueKey } from './values.ts';

/** Maximum number of different combinations of patterns that a name may match. */
const REGIONS_LIMIT = 64;

/** Set of names that the schema does not declare, and the schemas of their values. */
export interface Region {
  /** Start state of the DFA of the names. */
  readonly names: CharacterState;
  readonly values: Conjunction;
}

/** Operations on schemas that objects and arrays need. */
export interface Schemas {
  readonly strings: Strings;
  /** True if a schema without `additionalProperties` allows properties that it does not declare. */
  readonly isOpen: boolean;
  normal(schemas: Conjunction): readonly Alternative[];
  isEmpty(schemas: Conjunction): boolean;
}

/** Returns the schemas of a property's value, or undefined if the name is not allowed. */
export function propertySchemas(object: ObjectAlternative, name: string, schemas: Schemas): Conjunction | undefined {
  if (object.names.length > 0 && !isName(name, object.names, schemas)) return undefined;
  return joined(
    ...object.scopes.map((scope) => {
      const matching = scope.patterns.filter(({ pattern }) => matchesPattern(name, pattern, schemas.strings));
      const own = scope.properties.get(name);
      if (own === undefined && matching.length === 0) return scope.additional ?? [];
      return joined(own ?? [], ...matching.map(({ values }) => values));
    }),
  );
}

/** Returns the declared names in the order of the schema, and then the names that are only required. */
export function knownNames({ scopes, required }: ObjectAlternative): string[] {
  return [...new Set([...scopes.flatMap(({ properties }) => [...properties.keys()]), ...required])];
}

function matchesPattern(name: string, pattern: Pattern, strings: Strings): boolean {
  return strings.matches(name, { ...anyString, patterns: [pattern] });
}

function isName(name: string, names: Conjunction, { normal, strings }: Schemas): boolean {
  return normal(names).some((each) =>
    each.type === 'values' ? each.values.includes(name) : each.type === 'string' && strings.matches(name, each),
  );
}

/**
 * Returns the names that the schema does not declare, divided by the patterns that they match. Regions without values
 * are left out.
 *
 * @throws PtpError `invalid_argument` if there are more than REGIONS_LIMIT regions
 */
export function regionsOf(object: ObjectAlternative, schemas: Schemas): Region[] {
  const { normal, strings, isOpen } = schemas;
  const declaring = object.scopes.filter(({ silent }) => !silent);
  const isDefaultOpen =
    isOpen || declaring.length === 0 || declaring.some(({ additional }) => additional !== undefined);
  const names = object.names.length === 0 ? [anyString] : normal(object.names).flatMap(nameStrings);
  const excluded = knownNames(object);
  const patterns = new Map(
    object.scopes.flatMap(({ patterns }) => patterns.map(({ pattern }) => [pattern.source, pattern])),
  );
  let parts: { names: StringAlternative[]; matching: ReadonlySet<string> }[] = [{ names, matching: new Set() }];
  const stateOf = (names: readonly StringAlternative[]) => strings.union(names, excluded);
  for (const pattern of patterns.values()) {
    parts = parts.flatMap(({ names, matching }) => {
      const inside = names.map((each) => ({ ...each, patterns: [...each.patterns, pattern] }));
      const outside = names.map((each) => ({ ...each, patterns: [...each.patterns, { ...pattern, negated: true }] }));
      return [
        ...(stateOf(inside) ? [{ names: inside, matching: new Set([...matching, pattern.source]) }] : []),
        ...(stateOf(outside) ? [{ names: outside, matching }] : []),
      ];
    });
    if (parts.length > REGIONS_LIMIT) {
      throw fieldError(pattern.at, `must have at most ${REGIONS_LIMIT} combinations of patterns that one name matches`);
    }
  }
  return parts
    .filter(({ matching }) => isDefaultOpen || matching.size > 0)
    .flatMap(({ names, matching }) => {
      const state = stateOf(names);
      const values = joined(...object.scopes.map((scope) => regionValues(scope, matching)));
      return state ? [{ names: state, values }] : [];
    })
    .filter(({ values }) => !schemas.isEmpty(values));
}

function regionValues({ patterns, additional }: Scope, matching: ReadonlySet<string>): Conjunction {
  const own = patterns.filter(({ pattern }) => matching.has(pattern.source));
  return own.length > 0 ? joined(...own.map(({ values }) => values)) : (additional ?? []);
}

function nameStrings(alternative: Alternative): StringAlternative[] {
  if (alternative.type === 'string') return [alternative];
  if (alternative.type !== 'values') return [];
  return alternative.values
    .filter((value) => typeof value === 'string')
    .map((value) => ({ ...anyString, patterns: [exactly(value)] }));
}

/** Returns the pattern that only this text matches. */
const exactly = (text: string): Pattern => {
  const source = Array.from(text, (c) => `\\u{${(c.codePointAt(0) as number).toString(16)}}`).join('');
  return { source: `^${source}$`, negated: false, isFormat: true, at: '' };
};

/** Returns the maximum length of an array, which ends before the first item without values. */
export function longestArray(array: ArrayAlternative, isEmpty: (schemas: Conjunction) => boolean): number {
  for (let i = 0; i < Math.min(array.prefix.length, array.max); i++) if (isEmpty(itemSchemas(array, i))) return i;
  const { prefix, max, items } = array;
  return max > prefix.length && items && isEmpty(items) ? prefix.length : max;
}

/** Returns the distinct values of schemas, or undefined if the number of values may be infinite. */
export function finiteValues(schemas: Conjunction, { normal }: Schemas): unknown[] | undefined {
  const finite = (each: Alternative): readonly unknown[] | undefined => {
    if (each.type === 'values') return each.values;
    if (each.type === 'boolean') return [true, false];
    return each.type === 'null' ? [null] : undefined;
  };
  const all = normal(schemas).map(finite);
  if (all.some((values) => values === undefined)) return undefined;
  return [...new Map(all.flatMap((values) => values ?? []).map((value) => [valueKey(value), value])).values()];
}

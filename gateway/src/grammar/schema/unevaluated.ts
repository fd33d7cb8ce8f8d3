import { fieldError } from '@ptp/protocol/validation';
import type { Alternative, ArrayAlternative, Conjunction, ObjectAlternative } from './alternatives.ts';
import { joined } from './intersect.ts';
import type { Applicators } from './keyword-alternatives.ts';
import type { Schema } from './keywords.ts';

/** Applies `unevaluatedProperties` and `unevaluatedItems` to the alternatives of the schema's other keywords. */
export function withoutUnevaluated(
  alternatives: readonly Alternative[],
  { unevaluatedProperties, unevaluatedItems }: Schema,
  at: string,
  to: Applicators,
): readonly Alternative[] {
  let all = alternatives;
  if (unevaluatedProperties !== undefined) {
    const rest = to.conjunction(unevaluatedProperties, `${at}.unevaluatedProperties`);
    all = all.map((each) => (each.type === 'object' ? otherMembers(each, rest) : each));
  }
  if (unevaluatedItems !== undefined) {
    const rest = to.conjunction(unevaluatedItems, `${at}.unevaluatedItems`);
    all = all.map((each) => (each.type === 'array' ? otherItems(each, rest, at) : each));
  }
  return all;
}

/** Adds a scope whose additional properties are the properties that no other scope declares. */
function otherMembers(object: ObjectAlternative, rest: Conjunction): ObjectAlternative {
  const scopes = object.scopes.filter(({ silent }) => !silent);
  if (scopes.some(({ additional }) => additional !== undefined)) return object;
  const scope = {
    properties: new Map(scopes.flatMap(({ properties }) => [...properties.keys()].map((name) => [name, []]))),
    patterns: scopes.flatMap(({ patterns }) => patterns.map(({ pattern }) => ({ pattern, values: [] }))),
    additional: rest,
    silent: false,
  };
  return { ...object, scopes: [...object.scopes, scope] };
}

function otherItems(array: ArrayAlternative, rest: Conjunction, at: string): ArrayAlternative {
  if (array.contains.length > 0) throw fieldError(`${at}.unevaluatedItems`, 'must be absent next to `contains`');
  if (array.items) return array;
  const prefix = array.prefix.map((each, i) => (i < array.declared ? each : joined(each, rest)));
  return { ...array, prefix, declared: prefix.length, items: joined(rest) };
}

import type { Schema } from './json-schema-keywords.ts';

/** Properties of a schema by which its values differ from the values of other schemas. */
export interface Features {
  /** Enumerated values as JSON. Undefined if the schema does not enumerate its values. */
  readonly values: ReadonlySet<string> | undefined;
  /** Allowed types, where `integer` counts as `number`. Undefined if the schema has no `type`. */
  readonly types: ReadonlySet<string> | undefined;
  /** Enumerated values of required properties, keyed by the property's name. */
  readonly members: ReadonlyMap<string, ReadonlySet<string>>;
}

export function featuresOf(schema: Schema): Features {
  const { type, required = [], properties = {} } = schema;
  const members = new Map<string, ReadonlySet<string>>();
  for (const name of new Set(required)) {
    const values = Object.hasOwn(properties, name) ? valuesOf(properties[name]) : undefined;
    if (values) members.set(name, values);
  }
  const types = type && new Set([type].flat().map((name) => (name === 'integer' ? 'number' : name)));
  return { values: valuesOf(schema), types, members };
}

/** Returns true if types, enumerated values or required properties prove that no value satisfies both schemas. */
export function areDisjoint(a: Features, b: Features): boolean {
  if (a.values && b.values) return !overlap(a.values, b.values);
  if (!a.types || !b.types) return false;
  for (const type of a.types) if (type !== 'object' && b.types.has(type)) return false;
  if (!a.types.has('object') || !b.types.has('object')) return true;
  for (const [name, values] of a.members) {
    const others = b.members.get(name);
    if (others && !overlap(values, others)) return true;
  }
  return false;
}

function overlap(a: ReadonlySet<string>, b: ReadonlySet<string>): boolean {
  for (const value of a) if (b.has(value)) return true;
  return false;
}

function valuesOf(schema: unknown): ReadonlySet<string> | undefined {
  if (typeof schema !== 'object' || schema === null) return undefined;
  const { const: value, enum: values } = schema as Partial<Schema>;
  if (value !== undefined) return new Set([JSON.stringify(value)]);
  return Array.isArray(values) ? new Set(values.map((each) => JSON.stringify(each))) : undefined;
}

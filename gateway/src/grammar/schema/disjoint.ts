import { memberOf, valueKey } from './values.ts';

/** Features of a schema that can prove that its values differ from the values of another schema. */
export interface Features {
  /** Keys of the enumerated values. Undefined if the schema does not enumerate its values. */
  readonly values: ReadonlySet<string> | undefined;
  /** Allowed types, where `integer` counts as `number`. Undefined if the schema has no `type`. */
  readonly types: ReadonlySet<string> | undefined;
  /** Enumerated values of required properties, keyed by the property's name. */
  readonly members: ReadonlyMap<string, ReadonlySet<string>>;
}

const features = new WeakMap<object, Features>();

/** Returns the features of a schema, which need not be valid. */
export function featuresOf(schema: unknown): Features {
  if (typeof schema !== 'object' || schema === null) return { values: undefined, types: undefined, members: new Map() };
  const known = features.get(schema);
  if (known) return known;
  const [type, required, properties] = ['type', 'required', 'properties'].map((name) => memberOf(schema, name));
  const members = new Map<string, ReadonlySet<string>>();
  for (const name of new Set(Array.isArray(required) ? required : [])) {
    if (typeof name !== 'string' || typeof properties !== 'object' || properties === null) continue;
    const values = valuesOf(memberOf(properties, name));
    if (values) members.set(name, values);
  }
  const types = [type].flat().filter((name) => typeof name === 'string');
  const names = types.map((name) => (name === 'integer' ? 'number' : name));
  const own = { values: valuesOf(schema), types: names.length > 0 ? new Set(names) : undefined, members };
  features.set(schema, own);
  return own;
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
  const [constant, values] = [memberOf(schema, 'const'), memberOf(schema, 'enum')];
  if (constant !== undefined) return new Set([valueKey(constant)]);
  return Array.isArray(values) ? new Set(values.map(valueKey)) : undefined;
}

import { invalidField } from '@ptp/protocol/validation';
import { memberOf } from './values.ts';

/** URI of a schema without an `$id`. */
const ROOT = 'schema:/root';
/** Keywords whose values are schemas or arrays of schemas. */
const SCHEMAS = new Set([
  ...['allOf', 'anyOf', 'oneOf', 'not', 'if', 'then', 'else', 'contains', 'propertyNames', 'contentSchema'],
  ...['items', 'prefixItems', 'additionalItems', 'unevaluatedItems', 'additionalProperties', 'unevaluatedProperties'],
]);
/** Keywords whose values are objects of schemas. */
const NAMED_SCHEMAS = new Set([
  ...['properties', 'patternProperties', '$defs', 'definitions', 'dependentSchemas', 'dependencies'],
]);

/** Role of a part of a schema. An array of schemas counts as a schema. In other parts, `$id` and `$anchor` are data. */
type Role = 'schema' | 'schemas by name' | 'other';

interface Part {
  readonly part: unknown;
  readonly base: string;
  readonly role: Role;
}

/** Returns the role of a property in an object. */
function roleOf(name: string, role: Role): Role {
  if (role === 'schemas by name') return 'schema';
  if (role === 'schema' && SCHEMAS.has(name)) return 'schema';
  return role === 'schema' && NAMED_SCHEMAS.has(name) ? 'schemas by name' : 'other';
}

/** Index of the parts of a schema to which references may point: by URI (`$id`), name (`$anchor`) or JSON pointer. */
export class References {
  /** Schemas by absolute URI, with `#name` for anchors. */
  readonly #byUri = new Map<string, object | boolean>();
  /** Base URI of each object. */
  readonly #bases = new WeakMap<object, string>();

  constructor(root: unknown) {
    if (typeof root === 'object' && root !== null) this.#byUri.set(ROOT, root);
    this.#index(root);
  }

  #index(root: unknown): void {
    const pending: Part[] = [{ part: root, base: ROOT, role: 'schema' }];
    for (let next = pending.pop(); next; next = pending.pop()) {
      const { part, role } = next;
      if (typeof part !== 'object' || part === null) continue;
      const base = Array.isArray(part) ? next.base : this.#named(part, next);
      this.#bases.set(part, base);
      for (const [name, value] of Object.entries(part)) {
        pending.push({ part: value, base, role: Array.isArray(part) ? role : roleOf(name, role) });
      }
    }
  }

  /** Registers the names of a schema. Returns the base URI of its parts. */
  #named(part: object, { base, role }: Part): string {
    const [id, anchor, dynamic] = ['$id', '$anchor', '$dynamicAnchor'].map((name) => memberOf(part, name));
    const own = typeof id === 'string' ? id : memberOf(part, 'id');
    let inner = base;
    const register = (uri: string) => role === 'schema' && this.#byUri.set(uri, part);
    if (typeof own === 'string' && (id !== undefined || memberOf(part, '$schema') !== undefined)) {
      const uri = resolved(own, base);
      if (uri !== undefined) register(uri.replace(/#$/, ''));
      // `#name` was an anchor in draft 4 to 7.
      if (!own.startsWith('#')) inner = uri?.split('#')[0] ?? base;
    }
    for (const name of [anchor, dynamic]) if (typeof name === 'string') register(`${inner}#${name}`);
    return inner;
  }

  /**
   * Returns the part of the schema to which a `$ref` points.
   *
   * @param from schema that contains the reference
   * @param at path of that schema, for errors
   * @throws PtpError `invalid_argument` if the reference leads outside the schema
   */
  resolve(reference: string, from: object, at: string): unknown {
    const field = `${at}.$ref`;
    const uri = resolved(reference, this.#bases.get(from) ?? ROOT);
    const [document = '', fragment = ''] = uri?.split('#') ?? [];
    const known = uri === undefined ? undefined : this.#byUri.get(uri.replace(/#$/, ''));
    if (known !== undefined) return known;
    const start = this.#byUri.get(document);
    if (start === undefined) {
      throw invalidField(field, 'a reference within the schema, for example "#/$defs/name"', reference);
    }
    if (!fragment.startsWith('/')) throw invalidField(field, 'a reference to a part of the schema', reference);
    let schema: unknown = start;
    for (const part of fragment.split('/').slice(1)) {
      const key = decode(part).replaceAll('~1', '/').replaceAll('~0', '~');
      const found = typeof schema === 'object' && schema !== null && Object.hasOwn(schema, key);
      if (!found) throw invalidField(field, 'a reference to a part of the schema', reference);
      schema = (schema as Record<string, unknown>)[key];
    }
    return schema;
  }
}

function resolved(reference: string, base: string): string | undefined {
  if (reference === '' || reference.startsWith('#')) return `${base}${reference}`;
  return URL.parse(reference, base)?.href;
}

/** Percent-decodes a part of a URI fragment. A malformed part stays unchanged and so matches no name. */
function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

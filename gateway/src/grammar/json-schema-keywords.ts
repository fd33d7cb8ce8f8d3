import { PtpError } from '@ptp/protocol/errors';
import { parseFields } from '@ptp/protocol/validation';
import { z } from 'zod';
import { boolean, integer, number, text } from '../validation.ts';

const count = integer(0, Number.MAX_SAFE_INTEGER, 'an integer >= 0').optional();
const limit = number.optional();
const MOST = 1000;
const atMost = `of at most ${MOST}`;
const schemas = z.array(z.unknown(), { error: 'an array of schemas' }).min(1, 'not empty').max(MOST, atMost).optional();
const TYPES = ['object', 'array', 'string', 'number', 'integer', 'boolean', 'null'] as const;
const type = z.enum(TYPES, { error: TYPES.join(', ') });
const schemasByName = z
  .record(z.string(), z.unknown(), { error: 'an object of schemas' })
  .refine((value) => Object.keys(value).length <= MOST, atMost)
  .optional();

const keywords = z.looseObject(
  {
    $ref: text.optional(),
    type: z.union([z.array(type, { error: 'an array of types' }).min(1, 'not empty'), type]).optional(),
    enum: z.array(z.unknown(), { error: 'an array' }).min(1, 'not empty').max(MOST, atMost).optional(),
    const: z.unknown().optional(),
    anyOf: schemas,
    oneOf: schemas,
    allOf: z.array(z.unknown(), { error: 'an array of one schema' }).length(1, 'one schema alone').optional(),
    properties: schemasByName,
    required: z.array(text, { error: 'an array of names' }).optional(),
    additionalProperties: z.unknown().optional(),
    items: z
      .custom<unknown>((value) => !Array.isArray(value), 'one schema; an array of them is `prefixItems`')
      .optional(),
    prefixItems: schemas,
    minItems: count,
    maxItems: count,
    uniqueItems: boolean.optional(),
    minLength: count,
    maxLength: count,
    pattern: text.optional(),
    format: text.optional(),
    minimum: limit,
    maximum: limit,
    exclusiveMinimum: limit,
    exclusiveMaximum: limit,
    multipleOf: z.number({ error: 'a number above 0' }).positive('a number above 0').optional(),
  },
  { error: 'a schema' },
);

/** An object of JSON Schema whose known keywords have values of their kinds. */
export type Schema = z.infer<typeof keywords>;

/** Keywords that no grammar of ours follows. */
const REFUSED = [
  'not',
  'if',
  'then',
  'else',
  'patternProperties',
  'propertyNames',
  'minProperties',
  'maxProperties',
  'contains',
  'minContains',
  'maxContains',
  'dependentRequired',
  'dependentSchemas',
  'dependencies',
  'unevaluatedItems',
  'additionalItems',
  '$dynamicRef',
  '$recursiveRef',
];

/** By type, the keywords that are about it. */
const ABOUT = {
  object: ['properties', 'required', 'additionalProperties'],
  array: ['items', 'prefixItems', 'minItems', 'maxItems'],
  string: ['minLength', 'maxLength', 'pattern', 'format'],
  number: ['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum', 'multipleOf'],
} as const;
/** Keywords that say all by themselves; beside one another, or beside those of a type, both would have to hold. */
const ALONE = ['$ref', 'const', 'enum', 'anyOf', 'oneOf', 'allOf'] as const;

/** @throws PtpError `invalid_argument` naming the keyword that cannot be followed */
export function checkKeywords(given: unknown, at: string): Schema {
  if (given === false) throw refusal(at, 'must allow something, got false');
  const schema = within(at, () => parseFields(keywords, given));
  const refused = REFUSED.find((name) => schema[name] !== undefined);
  if (refused !== undefined) throw refusal(`${at}.${refused}`, 'is not supported');
  if (schema.uniqueItems) throw refusal(`${at}.uniqueItems`, 'is not supported');
  if (schema.unevaluatedProperties) throw refusal(`${at}.unevaluatedProperties`, 'is not supported');
  const [alone, another] = ALONE.filter((name) => schema[name] !== undefined);
  if (!alone) return schema;
  const beside =
    another ??
    Object.values(ABOUT)
      .flat()
      .find((name) => schema[name] !== undefined);
  if (beside !== undefined) throw refusal(`${at}.${beside}`, `must be absent beside \`${alone}\``);
  if (!schema.type) return schema;
  // a type beside values narrows them; beside other schemas it would have to hold too
  if (alone !== 'const' && alone !== 'enum') throw refusal(`${at}.type`, `must be absent beside \`${alone}\``);
  const types = [schema.type].flat();
  const values = alone === 'const' ? [schema.const] : (schema.enum ?? []);
  const fitting = values.filter((value) => types.some((name) => isOfType(value, name)));
  if (fitting.length === 0) throw refusal(`${at}.${alone}`, `must have a value of \`type\` (${types.join(', ')})`);
  return alone === 'enum' ? { ...schema, enum: fitting } : schema;
}

/** Types of the values that a schema allows, by what its keywords are about if it doesn't say; undefined for all. */
export function typesOf(schema: Schema): readonly (typeof TYPES)[number][] | undefined {
  if (schema.type) {
    const types = [schema.type].flat();
    return types.filter((name) => !(name === 'integer' && types.includes('number')));
  }
  const about = (['object', 'array', 'string', 'number'] as const).filter((name) =>
    ABOUT[name].some((keyword) => schema[keyword] !== undefined),
  );
  return about.length > 0 ? about : undefined;
}

/** What a schema is told from others by. */
export interface Marks {
  /** The values that it names, as JSON. */
  readonly values: ReadonlySet<string> | undefined;
  /** Its types, `integer` as `number`; undefined for all types, whatever its keywords are about. */
  readonly kinds: ReadonlySet<string> | undefined;
  /** Its required properties that name their values. */
  readonly members: ReadonlyMap<string, ReadonlySet<string>>;
}

export function marksOf(schema: Schema): Marks {
  const { type, required = [], properties = {} } = schema;
  const members = new Map<string, ReadonlySet<string>>();
  for (const name of new Set(required)) {
    const values = Object.hasOwn(properties, name) ? valuesOf(properties[name]) : undefined;
    if (values) members.set(name, values);
  }
  const kinds = type && new Set([type].flat().map((name) => (name === 'integer' ? 'number' : name)));
  return { values: valuesOf(schema), kinds, members };
}

/** Whether no value can satisfy both, as far as types and constant members of objects tell. */
export function areDisjoint(a: Marks, b: Marks): boolean {
  if (a.values && b.values) return !overlap(a.values, b.values);
  if (!a.kinds || !b.kinds) return false;
  for (const kind of a.kinds) if (kind !== 'object' && b.kinds.has(kind)) return false;
  if (!a.kinds.has('object') || !b.kinds.has('object')) return true;
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

/** The values that a schema names, as JSON; undefined if it names none. */
function valuesOf(schema: unknown): ReadonlySet<string> | undefined {
  if (typeof schema !== 'object' || schema === null) return undefined;
  const { const: value, enum: values } = schema as Partial<Schema>;
  if (value !== undefined) return new Set([JSON.stringify(value)]);
  return Array.isArray(values) ? new Set(values.map((each) => JSON.stringify(each))) : undefined;
}

function isOfType(value: unknown, name: (typeof TYPES)[number]): boolean {
  if (name === 'integer') return Number.isInteger(value);
  if (name === 'array') return Array.isArray(value);
  if (name === 'null') return value === null;
  if (name === 'object') return typeof value === 'object' && value !== null && !Array.isArray(value);
  return typeof value === name;
}

/** Puts the place of a schema before the fields that an error names. */
function within<T>(at: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof PtpError) || error.field === undefined) throw error;
    const field = error.field === 'body' ? at : `${at}.${error.field}`;
    throw new PtpError(error.code, error.message.replace(`\`${error.field}\``, `\`${field}\``), { field });
  }
}

/** @param says what is wrong with the field, after its name */
export function refusal(field: string, says: string): PtpError {
  return new PtpError('invalid_argument', `\`${field}\` ${says}`, { field });
}

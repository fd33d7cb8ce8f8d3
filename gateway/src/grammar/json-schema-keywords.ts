import { isLongNumber } from '@ptp/protocol/long-number';
import { fieldError, parseFields } from '@ptp/protocol/validation';
import { z } from 'zod';

/** Maximum number of properties, values or alternatives in one place of a schema. */
const LIMIT = 1000;
const LIMITED = ['enum', 'anyOf', 'oneOf', 'prefixItems', 'properties'] as const;
const nonEmpty = 'not empty';
const TYPES = ['object', 'array', 'string', 'number', 'integer', 'boolean', 'null'] as const;
type TypeName = (typeof TYPES)[number];

const text = z.string({ error: 'a string' }).refine((value) => value.isWellFormed(), 'free of lone surrogates');
const number = z.number({ error: 'a number' }).optional();
const count = z.int({ error: 'an integer >= 0' }).min(0, { error: 'an integer >= 0' }).optional();
const type = z.enum(TYPES, { error: TYPES.join(', ') });
const schemas = z.array(z.unknown(), { error: 'an array of schemas' }).min(1, nonEmpty).optional();

const keywords = z.looseObject(
  {
    $ref: text.optional(),
    type: z.union([z.array(type, { error: 'an array of types' }).min(1, nonEmpty), type]).optional(),
    enum: z.array(z.unknown(), { error: 'an array' }).min(1, nonEmpty).optional(),
    const: z.unknown().optional(),
    anyOf: schemas,
    oneOf: schemas,
    allOf: z.array(z.unknown(), { error: 'an array of one schema' }).length(1, 'one schema alone').optional(),
    // Not copied, so that the names keep their order.
    properties: z
      .custom<Record<string, unknown>>(
        (value) => typeof value === 'object' && value !== null && !Array.isArray(value) && !isLongNumber(value),
        'an object of schemas',
      )
      .optional(),
    required: z.array(text, { error: 'an array of names' }).optional(),
    additionalProperties: z.unknown().optional(),
    items: z
      .custom<unknown>((value) => !Array.isArray(value), 'one schema; an array of them is `prefixItems`')
      .optional(),
    prefixItems: schemas,
    minItems: count,
    maxItems: count,
    uniqueItems: z.boolean({ error: 'true or false' }).optional(),
    minLength: count,
    maxLength: count,
    pattern: text.optional(),
    format: text.optional(),
    minimum: number,
    maximum: number,
    exclusiveMinimum: number,
    exclusiveMaximum: number,
    multipleOf: z.number({ error: 'a number above 0' }).positive('a number above 0').optional(),
  },
  { error: 'a schema' },
);

/** JSON Schema object with valid values for all supported keywords. */
export type Schema = z.infer<typeof keywords>;

/** Keywords that are not supported, whatever their value. */
const UNSUPPORTED = [
  ...['not', 'if', 'then', 'else', 'dependencies', 'dependentRequired', 'dependentSchemas'],
  ...['patternProperties', 'propertyNames', 'minProperties', 'maxProperties'],
  ...['contains', 'minContains', 'maxContains', 'additionalItems', 'unevaluatedItems', '$dynamicRef', '$recursiveRef'],
];
/** Keywords that are supported only if false. */
const FALSE_ONLY = ['uniqueItems', 'unevaluatedProperties'];

/** Keywords that apply to a single type. */
const BY_TYPE = {
  object: ['properties', 'required', 'additionalProperties'],
  array: ['items', 'prefixItems', 'minItems', 'maxItems'],
  string: ['minLength', 'maxLength', 'pattern', 'format'],
  number: ['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum', 'multipleOf'],
} as const;
/**
 * Keywords that cannot be combined with each other or with the keywords of a type, because that would require an
 * intersection of grammars.
 */
const EXCLUSIVE = ['$ref', 'const', 'enum', 'anyOf', 'oneOf', 'allOf'] as const;

/** Validates the keywords of a schema. @throws PtpError `invalid_argument`, naming the keyword */
export function checkKeywords(value: unknown, at: string): Schema {
  if (value === false) throw fieldError(at, 'must allow some value, got false');
  const schema = parseFields(keywords, value, at);
  for (const name of LIMITED) {
    const { length } = Object.keys(schema[name] ?? {});
    if (length > LIMIT) throw fieldError(`${at}.${name}`, `must have at most ${LIMIT} entries, got ${length}`);
  }
  const unsupported = UNSUPPORTED.find((name) => schema[name] !== undefined) ?? FALSE_ONLY.find((name) => schema[name]);
  if (unsupported !== undefined) throw fieldError(`${at}.${unsupported}`, 'is not supported');
  const [exclusive, another] = EXCLUSIVE.filter((name) => schema[name] !== undefined);
  if (!exclusive) return schema;
  const typed = Object.values(BY_TYPE).flat();
  // `type` can filter enumerated values, but next to other schemas it would require an intersection of grammars
  const narrows = exclusive === 'const' || exclusive === 'enum';
  const extra =
    another ?? typed.find((name) => schema[name] !== undefined) ?? (schema.type && !narrows ? 'type' : undefined);
  if (extra !== undefined) throw fieldError(`${at}.${extra}`, `must be absent next to \`${exclusive}\``);
  if (!schema.type) return schema;
  const types = [schema.type].flat();
  const values = exclusive === 'const' ? [schema.const] : (schema.enum ?? []);
  const fitting = values.filter((value) => types.some((name) => isOfType(value, name)));
  if (fitting.length === 0) {
    throw fieldError(`${at}.${exclusive}`, `must have a value of \`type\` (${types.join(', ')})`);
  }
  return exclusive === 'enum' ? { ...schema, enum: fitting } : schema;
}

/**
 * Returns the allowed types, inferred from the keywords if the schema has no `type`. Returns undefined if all types are
 * allowed.
 */
export function typesOf(schema: Schema): readonly TypeName[] | undefined {
  if (schema.type) {
    const types = [schema.type].flat();
    return types.filter((name) => !(name === 'integer' && types.includes('number')));
  }
  const inferred = (['object', 'array', 'string', 'number'] as const).filter((name) =>
    BY_TYPE[name].some((keyword) => schema[keyword] !== undefined),
  );
  return inferred.length > 0 ? inferred : undefined;
}

function isOfType(value: unknown, name: TypeName): boolean {
  if (isLongNumber(value)) return name === 'number' || (name === 'integer' && !/[.eE]/.test(value.rawJSON));
  if (name === 'integer') return Number.isInteger(value);
  if (name === 'array') return Array.isArray(value);
  if (name === 'null') return value === null;
  if (name === 'object') return typeof value === 'object' && value !== null && !Array.isArray(value);
  return typeof value === name;
}

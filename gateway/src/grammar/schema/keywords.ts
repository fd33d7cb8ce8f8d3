import { isLongNumber, type LongNumber } from '@ptp/protocol/long-number';
import { fieldError, parseFields } from '@ptp/protocol/validation';
import { z } from 'zod';

/** Maximum number of properties, values or alternatives in one place of a schema. */
const LIMIT = 1000;
const LIMITED = ['enum', 'anyOf', 'oneOf', 'allOf', 'prefixItems', 'properties'] as const;
const nonEmpty = 'not empty';
const TYPES = ['object', 'array', 'string', 'number', 'integer', 'boolean', 'null'] as const;
type TypeName = (typeof TYPES)[number];

const text = z.string({ error: 'a string' }).refine((value) => value.isWellFormed(), 'free of lone surrogates');
const isNumber = (value: unknown): value is number | LongNumber => typeof value === 'number' || isLongNumber(value);
const isPositive = (value: number | LongNumber) => (isLongNumber(value) ? !value.rawJSON.startsWith('-') : value > 0);
const number = z.custom<number | LongNumber>(isNumber, 'a number').optional();
const count = z
  .custom<number>((value) => isCount(value) !== undefined, 'an integer >= 0')
  .transform((value) => isCount(value) as number)
  .optional();
const type = z.enum(TYPES, { error: TYPES.join(', ') });
const schemas = z.array(z.unknown(), { error: 'an array of schemas' }).min(1, nonEmpty).optional();
const names = z.array(text, { error: 'an array of names' });
const objectOf = (error: string) => z.custom<object>(isPlainObject, error).optional();
const boolean = z.boolean({ error: 'true or false' }).optional();

const keywords = z.looseObject(
  {
    $ref: text.optional(),
    type: z.union([z.array(type, { error: 'an array of types' }).min(1, nonEmpty), type]).optional(),
    enum: z.array(z.unknown(), { error: 'an array' }).min(1, nonEmpty).optional(),
    const: z.unknown().optional(),
    anyOf: schemas,
    oneOf: schemas,
    allOf: schemas,
    not: z.unknown().optional(),
    if: z.unknown().optional(),
    // biome-ignore lint/suspicious/noThenProperty: the keyword of JSON Schema
    then: z.unknown().optional(),
    else: z.unknown().optional(),
    properties: objectOf('an object of schemas'),
    patternProperties: objectOf('an object of schemas'),
    required: names.optional(),
    additionalProperties: z.unknown().optional(),
    unevaluatedProperties: z.unknown().optional(),
    propertyNames: z.unknown().optional(),
    minProperties: count,
    maxProperties: count,
    dependentRequired: objectOf('an object of arrays of names'),
    dependentSchemas: objectOf('an object of schemas'),
    dependencies: objectOf('an object of schemas or arrays of names'),
    items: z.unknown().optional(),
    additionalItems: z.unknown().optional(),
    unevaluatedItems: z.unknown().optional(),
    prefixItems: schemas,
    minItems: count,
    maxItems: count,
    uniqueItems: boolean,
    contains: z.unknown().optional(),
    minContains: count,
    maxContains: count,
    minLength: count,
    maxLength: count,
    pattern: text.optional(),
    format: text.optional(),
    minimum: number,
    maximum: number,
    // Draft 4 has booleans, which apply to `minimum` and `maximum`.
    exclusiveMinimum: z.union([z.boolean(), z.custom<number | LongNumber>(isNumber)], { error: 'a number' }).optional(),
    exclusiveMaximum: z.union([z.boolean(), z.custom<number | LongNumber>(isNumber)], { error: 'a number' }).optional(),
    multipleOf: z
      .custom<number | LongNumber>((value) => isNumber(value) && isPositive(value), 'a number above 0')
      .optional(),
  },
  { error: 'a schema' },
);

/** JSON Schema object with valid values for all supported keywords. */
export type Schema = z.infer<typeof keywords>;

/** Keywords that are not supported, whatever their value. */
const UNSUPPORTED = ['$dynamicRef', '$recursiveRef'];

/** Validates the keywords of a schema. @throws PtpError `invalid_argument`, naming the keyword */
export function checkKeywords(value: unknown, at: string): Schema {
  const schema = parseFields(keywords, value, at);
  for (const name of LIMITED) {
    const { length } = Object.keys(schema[name] ?? {});
    if (length > LIMIT) throw fieldError(`${at}.${name}`, `must have at most ${LIMIT} entries, got ${length}`);
  }
  const unsupported = UNSUPPORTED.find((name) => schema[name] !== undefined);
  if (unsupported !== undefined) throw fieldError(`${at}.${unsupported}`, 'is not supported');
  return schema;
}

/** Validates an array of property names. @throws PtpError `invalid_argument` */
export const checkNames = (value: unknown, at: string): readonly string[] => parseFields(names, value, at);

/** Returns the types that a schema allows. */
export function typesOf({ type }: Schema): ReadonlySet<TypeName> {
  return new Set(type === undefined ? TYPES : [type].flat());
}

/** Returns an integer >= 0, or undefined. Numbers beyond the range of doubles count as infinite. */
function isCount(value: unknown): number | undefined {
  if (isLongNumber(value)) return /^\d+$/.test(value.rawJSON) ? Number.POSITIVE_INFINITY : undefined;
  return Number.isInteger(value) && (value as number) >= 0 ? (value as number) : undefined;
}

function isPlainObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !isLongNumber(value);
}

import { invalidField } from '@ptp/protocol/validation';
import { z } from 'zod';
import { utf8 } from '../grammar/characters.ts';
import { choice, type Expression, literal } from '../grammar/expression.ts';
import { jsonSchemaGrammar } from '../grammar/json-schema.ts';
import { jsonObject } from '../grammar/json-text.ts';
import { RegexError, regexGrammar } from '../grammar/regex.ts';
import type { OutputConstraint } from '../grammar/types.ts';
import { parseJsonField } from '../http/json.ts';
import { boolean, object, text } from '../validation.ts';

const kinds = 'text, json_object or json_schema';
const schemaField = z
  .unknown()
  .refine((value) => value !== undefined, 'a JSON Schema')
  .meta({ description: 'a JSON Schema' });
const jsonSchema = { name: text.optional(), schema: schemaField, strict: boolean.nullish() };

const formatWith = <Shape extends z.core.$ZodLooseShape>(schemaFields: Shape) =>
  z.discriminatedUnion(
    'type',
    [
      object({ type: z.literal('text') }),
      object({ type: z.literal('json_object'), schema: z.unknown().optional() }),
      object({ type: z.literal('json_schema'), ...schemaFields }),
    ],
    { error: (issue) => (issue.code === 'invalid_union' ? kinds : 'an object') },
  );

/** Schema of `response_format` in completions and chat. */
export const responseFormat = formatWith({ json_schema: object(jsonSchema) });
/** Schema of `text.format` in the responses API. */
export const textFormat = formatWith(jsonSchema);

const choicesError = 'an array of 1 to 1,000 strings';
const choices = z
  .array(text.max(10_000, 'a string of at most 10,000 characters'), { error: choicesError })
  .min(1, choicesError)
  .max(1000, choicesError);
/** Schema of `structured_outputs`, vLLM's extension of the API. */
export const structuredOutputs = object({
  json: schemaField.optional(),
  json_object: boolean.nullish(),
  regex: text.nullish(),
  choice: choices.nullish(),
  grammar: z.undefined('absent: it is not supported').optional(),
  structural_tag: z.undefined('absent: it is not supported').optional(),
});
/** Older names of the fields of `structured_outputs`. */
export const guidedFields = {
  guided_json: schemaField.optional(),
  guided_regex: text.nullish(),
  guided_choice: choices.nullish(),
};

/** The fields of a request that may constrain its output. */
interface ConstraintFields extends Partial<z.infer<z.ZodObject<typeof guidedFields>>> {
  readonly response_format?: z.infer<typeof responseFormat> | null | undefined;
  readonly structured_outputs?: z.infer<typeof structuredOutputs> | null | undefined;
}

/**
 * Returns the constraint of a completion or chat request, or undefined if any text is allowed.
 *
 * @throws PtpError `invalid_argument`, naming the field or the unsupported part of its schema
 */
export function constraintOf({
  response_format: format,
  structured_outputs: structured,
  guided_json: json,
  guided_regex: regex,
  guided_choice: choice,
}: ConstraintFields): OutputConstraint | undefined {
  const schema = format?.type === 'json_schema' ? format.json_schema.schema : undefined;
  const guided = [json, regex, choice].some((value) => value != null) ? { json, regex, choice } : undefined;
  const given = {
    response_format: format && formatConstraint(format, schema, 'response_format.json_schema.schema'),
    structured_outputs: structured && structuredConstraint(structured, 'structured_outputs', '.'),
    guided: guided && structuredConstraint(guided, 'guided', '_'),
  };
  const [first, second] = Object.entries(given).filter(([, constraint]) => constraint != null);
  if (second) throw invalidField(second[0], `absent with \`${first?.[0]}\``, 'both');
  return first?.[1] ?? undefined;
}

/**
 * Returns the constraint for a response format, or undefined for plain text.
 *
 * @param field request field that contains the schema of a `json_schema`, for errors
 */
export function formatConstraint(
  format: { readonly type: 'text' | 'json_object' | 'json_schema'; readonly schema?: unknown },
  schema: unknown,
  field: string,
): OutputConstraint | undefined {
  if (format.type === 'text') return undefined;
  const key = JSON.stringify(format);
  if (format.type === 'json_schema') return { grammar: jsonSchemaGrammar(schema, field), key };
  // llama.cpp accepts a schema here.
  if (format.schema != null) return { grammar: jsonSchemaGrammar(format.schema, 'response_format.schema'), key };
  return { grammar: jsonObject, key };
}

/** @param separator character between `parent` and a field's name, for errors */
function structuredConstraint(
  structured: z.infer<typeof structuredOutputs>,
  parent: string,
  separator: string,
): OutputConstraint {
  const kinds = ['json', 'json_object', 'regex', 'choice'] as const;
  const given = kinds.filter((name) => structured[name] != null);
  if (given.length !== 1) throw invalidField(parent, `exactly one of ${kinds.join(', ')}`, structured);
  const field = `${parent}${separator}${given[0]}`;
  return { grammar: structuredGrammar(structured, field), key: JSON.stringify(structured) };
}

function structuredGrammar(structured: z.infer<typeof structuredOutputs>, field: string): Expression {
  const { json, regex, choice: texts } = structured;
  // vLLM also accepts the schema as a string.
  if (json != null) return jsonSchemaGrammar(typeof json === 'string' ? parseSchema(json, field) : json, field);
  if (texts) return choice(...texts.map(literal));
  if (regex != null) return wholeRegex(regex, field);
  if (!structured.json_object) throw invalidField(field, 'true', false);
  return jsonObject;
}

/**
 * Returns the grammar of the texts that a regular expression matches from beginning to end.
 *
 * @throws PtpError `invalid_argument`, naming the unsupported part of the expression
 */
export function wholeRegex(regex: string, field: string): Expression {
  try {
    return regexGrammar(`^(?:${regex})$`, utf8);
  } catch (error) {
    if (!(error instanceof RegexError)) throw error;
    throw invalidField(field, `a supported regular expression (${error.message})`, regex);
  }
}

/** Parses the text of a JSON Schema. @throws PtpError `invalid_argument` unless the text is JSON */
export function parseSchema(schema: string, field: string): unknown {
  return parseJsonField(schema, field, 'a schema');
}

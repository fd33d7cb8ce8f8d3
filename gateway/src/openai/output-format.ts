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
      object({ type: z.literal('json_object') }),
      object({ type: z.literal('json_schema'), ...schemaFields }),
    ],
    { error: (issue) => (issue.code === 'invalid_union' ? kinds : 'an object') },
  );

/** Schema of `response_format` in completions and chat. */
export const responseFormat = formatWith({ json_schema: object(jsonSchema) });
/** Schema of `text.format` in the responses API. */
export const textFormat = formatWith(jsonSchema);

const choicesError = 'an array of 1 to 1,000 strings';
/** Schema of `structured_outputs`, vLLM's extension of the API. */
export const structuredOutputs = object({
  json: schemaField.optional(),
  json_object: boolean.nullish(),
  regex: text.nullish(),
  choice: z
    .array(text.max(10_000, 'a string of at most 10,000 characters'), { error: choicesError })
    .min(1, choicesError)
    .max(1000, choicesError)
    .nullish(),
  grammar: z.undefined('absent: it is not supported').optional(),
  structural_tag: z.undefined('absent: it is not supported').optional(),
});

/**
 * Returns the constraint of a completion or chat request, or undefined if any text is allowed.
 *
 * @throws PtpError `invalid_argument`, naming the field or the unsupported part of its schema
 */
export function constraintOf(
  format: z.infer<typeof responseFormat> | null | undefined,
  structured: z.infer<typeof structuredOutputs> | null | undefined,
): OutputConstraint | undefined {
  const schema = format?.type === 'json_schema' ? format.json_schema.schema : undefined;
  const formatted = format && formatConstraint(format, schema, 'response_format.json_schema.schema');
  if (formatted && structured) throw invalidField('structured_outputs', 'absent with `response_format`', structured);
  if (formatted) return formatted;
  return structured ? { grammar: structuredGrammar(structured), key: JSON.stringify(structured) } : undefined;
}

/**
 * Returns the constraint for a response format, or undefined for plain text.
 *
 * @param field request field that contains the schema, for errors
 */
export function formatConstraint(
  format: { readonly type: 'text' | 'json_object' | 'json_schema' },
  schema: unknown,
  field: string,
): OutputConstraint | undefined {
  if (format.type === 'text') return undefined;
  const grammar = format.type === 'json_schema' ? jsonSchemaGrammar(schema, field) : jsonObject;
  return { grammar, key: JSON.stringify(format) };
}

function structuredGrammar(structured: z.infer<typeof structuredOutputs>): Expression {
  const given = (['json', 'json_object', 'regex', 'choice'] as const).filter((name) => structured[name] != null);
  if (given.length !== 1) {
    throw invalidField('structured_outputs', 'exactly one of json, json_object, regex, choice', structured);
  }
  const { json, regex, choice: texts } = structured;
  if (json != null) {
    const field = 'structured_outputs.json';
    // vLLM also accepts the schema as a string.
    return jsonSchemaGrammar(typeof json === 'string' ? parseSchema(json, field) : json, field);
  }
  if (texts) return choice(...texts.map(literal));
  if (regex != null) return wholeRegex(regex, 'structured_outputs.regex');
  if (!structured.json_object) throw invalidField('structured_outputs.json_object', 'true', false);
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

import { invalidField } from '@ptp/protocol/validation';
import { z } from 'zod';
import { choice, type Expression, literal } from '../grammar/expression.ts';
import { jsonSchemaGrammar } from '../grammar/json-schema.ts';
import { jsonObject } from '../grammar/json-text.ts';
import { regexGrammar } from '../grammar/regex.ts';
import { RegexError } from '../grammar/strings/pattern-syntax.ts';
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
  disable_additional_properties: boolean.nullish(),
  grammar: z.undefined('absent: it is not supported').optional(),
  structural_tag: z.undefined('absent: it is not supported').optional(),
});
/** Older names of the fields of `structured_outputs`. */
export const guidedFields = {
  guided_json: schemaField.optional(),
  guided_regex: text.nullish(),
  guided_choice: choices.nullish(),
};

/** Constraint of a request. */
export interface RequestConstraint extends OutputConstraint {
  /** Warnings about guarantees that the constraint does not give. */
  readonly warnings?: readonly string[];
}

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
export function constraintOf(fields: ConstraintFields): RequestConstraint | undefined {
  const { response_format: format, structured_outputs: structured } = fields;
  const guided = {
    guided_json: { json: fields.guided_json },
    guided_regex: { regex: fields.guided_regex },
    guided_choice: { choice: fields.guided_choice },
  };
  const constraints = {
    response_format: format && formatConstraint(format, ...schemaOf(format)),
    structured_outputs: structured && structuredConstraint(structured),
    ...Object.fromEntries(
      Object.entries(guided).map(([field, form]) => [
        field,
        Object.values(form)[0] == null ? undefined : constraintOfForm(form, field),
      ]),
    ),
  };
  const [first, second] = Object.entries(constraints).filter(([, constraint]) => constraint != null);
  if (second) {
    const [field] = second;
    throw invalidField(field, `absent with \`${first?.[0]}\``, fields[field as keyof ConstraintFields]);
  }
  return first?.[1] ?? undefined;
}

/** Returns the schema of a response format and its field. llama.cpp accepts a schema with `json_object`. */
function schemaOf(format: z.infer<typeof responseFormat>): [schema: unknown, field: string] {
  if (format.type === 'json_schema') return [format.json_schema.schema, 'response_format.json_schema.schema'];
  return [format.type === 'json_object' ? format.schema : undefined, 'response_format.schema'];
}

/**
 * Returns the constraint for a response format, or undefined for plain text.
 *
 * @param schema JSON Schema, required for `json_schema`
 * @param field request field that contains the schema, for errors
 */
export function formatConstraint(
  format: z.infer<typeof responseFormat> | z.infer<typeof textFormat>,
  schema: unknown,
  field: string,
): OutputConstraint | undefined {
  if (format.type === 'text') return undefined;
  const isAny = format.type === 'json_object' && schema == null;
  // Without `strict: false`, clients mean the properties that their schema names.
  const { strict } = 'json_schema' in format ? format.json_schema : { strict: undefined, ...format };
  const grammar = isAny ? jsonObject : jsonSchemaGrammar(schema, field, { open: strict === false });
  return { grammar, key: JSON.stringify(format) };
}

type Structured = z.infer<typeof structuredOutputs>;

function structuredConstraint(structured: Structured): OutputConstraint {
  const forms = ['json', 'json_object', 'regex', 'choice'] as const;
  const given = forms.filter((name) => structured[name] != null);
  if (given.length !== 1) throw invalidField('structured_outputs', `exactly one of ${forms.join(', ')}`, structured);
  return constraintOfForm(structured, `structured_outputs.${given[0]}`);
}

const constraintOfForm = (form: Structured, field: string): OutputConstraint => ({
  grammar: formGrammar(form, field),
  key: JSON.stringify(form),
});

/**
 * Returns the grammar of the only form that is given.
 *
 * @throws PtpError `invalid_argument`, naming `field` or the unsupported part of the form
 */
export function formGrammar(
  { json, json_object: isJson, regex, choice: texts, disable_additional_properties: isClosed }: Structured,
  field: string,
): Expression {
  // vLLM also accepts the schema as a string.
  if (json != null) {
    const schema = typeof json === 'string' ? parseJsonField(json, field, 'a schema') : json;
    return jsonSchemaGrammar(schema, field, { open: isClosed === false });
  }
  if (texts) return choice(...texts.map(literal));
  if (regex != null) return wholeRegex(regex, field);
  if (!isJson) throw invalidField(field, 'true', false);
  return jsonObject;
}

/**
 * Returns the grammar of the texts that a regular expression matches from beginning to end.
 *
 * @throws PtpError `invalid_argument`, naming the unsupported part of the expression
 */
function wholeRegex(regex: string, field: string): Expression {
  try {
    return regexGrammar(regex, 'utf8', 'whole');
  } catch (error) {
    if (!(error instanceof RegexError)) throw error;
    throw invalidField(field, `a supported regular expression (${error.message})`, regex);
  }
}

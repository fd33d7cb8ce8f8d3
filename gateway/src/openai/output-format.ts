import { z } from 'zod';
import { utf8 } from '../grammar/characters.ts';
import { choice, type Expression, literal } from '../grammar/expression.ts';
import type { Form } from '../grammar/grammars.ts';
import { jsonSchemaGrammar } from '../grammar/json-schema.ts';
import { jsonObject } from '../grammar/json-text.ts';
import { RegexError, regexGrammar } from '../grammar/regex.ts';
import { parsedText } from '../http/nesting.ts';
import { boolean, object, refuse, text } from '../validation.ts';

const kinds = 'text, json_object or json_schema';
const schemaOf = z.unknown().meta({ description: 'a JSON Schema' });

const jsonSchema = { name: text.optional(), schema: schemaOf, strict: boolean.nullish() };
const format = <Shape extends z.core.$ZodLooseShape>(withSchema: Shape) =>
  z.discriminatedUnion(
    'type',
    [
      object({ type: z.literal('text') }),
      object({ type: z.literal('json_object') }),
      object({ type: z.literal('json_schema'), ...withSchema }),
    ],
    { error: (issue) => (issue.code === 'invalid_union' ? kinds : 'an object') },
  );

/** OpenAI's `response_format`: of completions and chat, and as the responses API has it in `text.format`. */
export const responseFormat = {
  nested: format({ json_schema: object(jsonSchema) }),
  flat: format(jsonSchema),
};

const choicesError = 'an array of 1 to 1,000 strings';
/** vLLM's `structured_outputs`. */
export const structuredOutputs = object({
  json: schemaOf.optional(),
  json_object: boolean.nullish(),
  regex: text.nullish(),
  choice: z
    .array(text.max(10_000, 'of at most 10,000 characters'), { error: choicesError })
    .min(1, choicesError)
    .max(1000, choicesError)
    .nullish(),
  grammar: z.undefined('absent: it is not supported').optional(),
  structural_tag: z.undefined('absent: it is not supported').optional(),
});

/** @throws PtpError `invalid_argument` naming what of a schema cannot be followed */
export function formOf(
  format: z.infer<typeof responseFormat.nested> | null | undefined,
  structured: z.infer<typeof structuredOutputs> | null | undefined,
): Form | undefined {
  const formatted = format && format.type !== 'text';
  if (formatted && structured) refuse('structured_outputs', 'absent beside `response_format`', structured);
  if (formatted) {
    const schema = format.type === 'json_schema' ? format.json_schema.schema : undefined;
    return formatForm(format, schema, 'response_format.json_schema.schema');
  }
  return structured ? { grammar: structuredGrammar(structured), key: JSON.stringify(structured) } : undefined;
}

/** @param field where the schema stands in the request, for errors */
export function formatForm(
  format: { readonly type: 'json_object' | 'json_schema' },
  schema: unknown,
  field: string,
): Form {
  const grammar = format.type === 'json_schema' ? jsonSchemaGrammar(schema, field) : jsonObject;
  return { grammar, key: JSON.stringify(format) };
}

function structuredGrammar(structured: z.infer<typeof structuredOutputs>): Expression {
  const given = (['json', 'json_object', 'regex', 'choice'] as const).filter((name) => structured[name] != null);
  if (given.length !== 1) refuse('structured_outputs', 'exactly one of json, json_object, regex, choice', structured);
  const { json, regex, choice: texts } = structured;
  if (json != null) {
    const field = 'structured_outputs.json';
    // vLLM takes a schema as text too
    return jsonSchemaGrammar(typeof json === 'string' ? parsedSchema(json, field) : json, field);
  }
  if (texts) return choice(...texts.map(literal));
  if (regex == null)
    return structured.json_object ? jsonObject : refuse('structured_outputs.json_object', 'true', false);
  return wholeRegex(regex, 'structured_outputs.regex');
}

/** Texts that a regular expression matches as a whole. @throws PtpError `invalid_argument` naming what of it cannot be followed */
export function wholeRegex(regex: string, field: string): Expression {
  try {
    return regexGrammar(`^(?:${regex})$`, utf8);
  } catch (error) {
    if (!(error instanceof RegexError)) throw error;
    return refuse(field, `a regular expression that can be followed: ${error.message}`, regex);
  }
}

/** @throws PtpError `invalid_argument` unless the text is JSON */
export function parsedSchema(text: string, field: string): unknown {
  return parsedText(text, field, 'a schema');
}

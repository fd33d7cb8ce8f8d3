import { fieldError, invalidField } from '@ptp/protocol/validation';
import { choice, type Expression, literal, reference } from './expression.ts';
import { formattedString, matchingString } from './formats.ts';
import { getOrCreate } from './get-or-create.ts';
import { numberInRange } from './json-numbers.ts';
import { areDisjoint, type Features, featuresOf } from './json-schema-disjoint.ts';
import { checkKeywords, type Schema, typesOf } from './json-schema-keywords.ts';
import { resolveReference } from './json-schema-reference.ts';
import {
  arrayOf,
  jsonBoolean,
  jsonInteger,
  jsonNull,
  jsonNumber,
  jsonString,
  jsonValue,
  list,
  member,
  objectOf,
  otherString,
} from './json-text.ts';
import { RegexError } from './regex.ts';

/**
 * Compiles a JSON Schema (2020-12) to a grammar. Every text that matches the grammar is JSON that satisfies the schema.
 * To stay small, the grammar omits some valid texts: properties must follow the order of the schema, properties that
 * the schema does not name require `additionalProperties`, and each enumerated value has one spelling. Keywords that
 * the grammar cannot enforce are errors.
 *
 * @param field path of the schema in the request, for errors
 * @throws PtpError `invalid_argument`, naming the keyword
 */
export function jsonSchemaGrammar(schema: unknown, field: string): Expression {
  return new SchemaCompiler(schema, field).compile();
}

/** Maximum nesting depth of schemas, and maximum length of a chain of references. */
const DEPTH_LIMIT = 64;
/** Maximum number of characters in a schema as JSON. The size of the grammar is proportional to it. */
const TEXT_LIMIT = 100_000;
/**
 * Maximum number of characters in all patterns of a schema, because one character class may become dozens of
 * expressions.
 */
const PATTERNS_LIMIT = 20_000;

class SchemaCompiler {
  readonly #root: unknown;
  readonly #field: string;
  /** Expressions, keyed by `$ref`. In a recursive schema, an expression is undefined while it is being compiled. */
  readonly #references = new Map<string, { expression: Expression | undefined }>();
  readonly #features = new Map<Schema, Features>();
  #depth = 0;
  #patternsLength = 0;

  constructor(root: unknown, field: string) {
    this.#root = root;
    this.#field = field;
  }

  compile(): Expression {
    const length = JSON.stringify(this.#root)?.length ?? 0;
    if (length > TEXT_LIMIT)
      throw fieldError(this.#field, `must have at most ${TEXT_LIMIT} characters as JSON, got ${length}`);
    return this.#value(this.#root, this.#field);
  }

  #value(value: unknown, at: string): Expression {
    if (value === true) return jsonValue;
    const schema = checkKeywords(value, at);
    if (++this.#depth > DEPTH_LIMIT) throw fieldError(at, `must be nested at most ${DEPTH_LIMIT} levels deep`);
    try {
      if (schema.$ref !== undefined) return this.#reference(schema.$ref, at);
      if (schema.const !== undefined) return literal(JSON.stringify(schema.const));
      if (schema.enum) return choice(...schema.enum.map((value) => literal(JSON.stringify(value))));
      for (const name of ['anyOf', 'oneOf', 'allOf'] as const) {
        const schemas = schema[name];
        if (!schemas) continue;
        const options = schemas.map((each, i) => this.#value(each, `${at}.${name}[${i}]`));
        if (name === 'oneOf') this.#requireDisjoint(schemas, `${at}.oneOf`);
        return choice(...options);
      }
      const types = typesOf(schema);
      return types ? choice(...types.map((type) => this.#typed(type, schema, at))) : jsonValue;
    } finally {
      this.#depth--;
    }
  }

  #typed(type: string, schema: Schema, at: string): Expression {
    switch (type) {
      case 'object':
        return this.#object(schema, at);
      case 'array':
        return this.#array(schema, at);
      case 'string':
        return this.#string(schema, at);
      case 'integer':
      case 'number':
        return this.#number(schema, type === 'integer', at);
      case 'boolean':
        return jsonBoolean;
      default:
        return jsonNull;
    }
  }

  #object({ properties, required = [], additionalProperties }: Schema, at: string): Expression {
    const names = Object.keys(properties ?? {});
    const known = names.map((name) => {
      const value = this.#value(properties?.[name], `${at}.properties.${name}`);
      return { member: member(literal(JSON.stringify(name)), value), required: required.includes(name) };
    });
    const missing = required.find((name) => !names.includes(name));
    if (missing !== undefined) throw invalidField(`${at}.required`, 'names of `properties`', missing);
    // A schema without `properties` allows any properties.
    const additional = additionalProperties ?? !properties;
    if (additional === false) return objectOf(known, undefined);
    const others = this.#value(additional, `${at}.additionalProperties`);
    return objectOf(known, list(member(otherString(names), others)));
  }

  #array(schema: Schema, at: string): Expression {
    const { prefixItems = [], items = true, minItems: min = 0, maxItems: max = Number.POSITIVE_INFINITY } = schema;
    if (min > max) throw invalidField(`${at}.minItems`, `at most \`maxItems\` (${max})`, min);
    const first = prefixItems.map((each, i) => this.#value(each, `${at}.prefixItems[${i}]`));
    const rest = items === false ? undefined : this.#value(items, `${at}.items`);
    if (!rest && min > first.length) throw invalidField(`${at}.minItems`, `at most ${first.length} items`, min);
    return arrayOf(first.slice(0, Math.min(first.length, max)), rest, min, max);
  }

  #string({ pattern, minLength, maxLength, format }: Schema, at: string): Expression {
    const [min, max] = [minLength ?? 0, maxLength ?? Number.POSITIVE_INFINITY];
    if (min > max) throw invalidField(`${at}.minLength`, `at most \`maxLength\` (${max})`, min);
    const formatted = format === undefined ? undefined : formattedString(format);
    if (pattern === undefined && !formatted) return jsonString(min, max);
    if (minLength !== undefined || maxLength !== undefined) {
      const length = minLength === undefined ? 'maxLength' : 'minLength';
      const other = pattern === undefined ? 'format' : 'pattern';
      throw fieldError(`${at}.${length}`, `must be absent next to \`${other}\``);
    }
    return pattern === undefined ? (formatted as Expression) : this.#pattern(pattern, `${at}.pattern`);
  }

  #pattern(pattern: string, at: string): Expression {
    this.#patternsLength += pattern.length;
    if (this.#patternsLength > PATTERNS_LIMIT) {
      throw fieldError(
        at,
        `is too long: all patterns together must have at most ${PATTERNS_LIMIT} characters, got ${this.#patternsLength}`,
      );
    }
    try {
      return matchingString(pattern);
    } catch (error) {
      if (!(error instanceof RegexError)) throw error;
      throw fieldError(at, `must be a supported regular expression: ${error.message}`);
    }
  }

  #number(schema: Schema, isInteger: boolean, at: string): Expression {
    const { minimum, maximum, exclusiveMinimum, exclusiveMaximum, multipleOf } = schema;
    const limits = [minimum, maximum, exclusiveMinimum, exclusiveMaximum, multipleOf];
    if (limits.every((limit) => limit === undefined)) return isInteger ? jsonInteger : jsonNumber;
    if (multipleOf !== undefined && !(Number.isInteger(multipleOf) && multipleOf <= 1000)) {
      throw invalidField(`${at}.multipleOf`, 'an integer in [1, 1000]', multipleOf);
    }
    const min = Math.max(minimum ?? Number.NEGATIVE_INFINITY, exclusiveMinimum ?? Number.NEGATIVE_INFINITY);
    const max = Math.min(maximum ?? Number.POSITIVE_INFINITY, exclusiveMaximum ?? Number.POSITIVE_INFINITY);
    const numbers = numberInRange({
      min,
      max,
      exclusiveMin: min === exclusiveMinimum,
      exclusiveMax: max === exclusiveMaximum,
      integer: isInteger || multipleOf !== undefined,
      multipleOf: multipleOf ?? 1,
    });
    if (!numbers) throw fieldError(at, 'must allow at least one number: its range is empty');
    return numbers;
  }

  #reference(pointer: string, at: string): Expression {
    const known = this.#references.get(pointer);
    if (known) return reference(() => known.expression as Expression);
    const entry: { expression: Expression | undefined } = { expression: undefined };
    this.#references.set(pointer, entry);
    const schema = resolveReference(this.#root, pointer, at);
    entry.expression = this.#value(schema, `${this.#field}${pointer.slice(1).replaceAll('/', '.')}`);
    return entry.expression;
  }

  /**
   * Throws unless it is certain that no value can satisfy two of the schemas. `oneOf` then means the same as `anyOf`.
   */
  #requireDisjoint(schemas: readonly unknown[], at: string): void {
    const earlier: Features[] = [];
    for (const [i, each] of schemas.entries()) {
      const schema = this.#dereferenced(each, `${at}[${i}]`);
      const features = getOrCreate(this.#features, schema, () => featuresOf(schema));
      const other = earlier.findIndex((before) => !areDisjoint(before, features));
      if (other >= 0) {
        const problem =
          'must have schemas that exclude each other by `type` or by different values of a required property';
        throw fieldError(at, `${problem}, but [${other}] and [${i}] do not; use \`anyOf\` instead`);
      }
      earlier.push(features);
    }
  }

  #dereferenced(schema: unknown, at: string): Schema {
    for (let hops = 0, current = schema; ; hops++) {
      const { $ref } = (current ?? {}) as Schema;
      if (typeof $ref !== 'string' || hops > DEPTH_LIMIT) return current as Schema;
      current = resolveReference(this.#root, $ref, at);
    }
  }
}

import type { PtpError } from '@ptp/protocol/errors';
import { choice, type Expression, literal, nothing, optional, reference, sequence } from './expression.ts';
import { formatOf, jsonStringOf } from './formats.ts';
import { getOr } from './get-or.ts';
import { jsonNumberIn } from './json-numbers.ts';
import {
  areDisjoint,
  checkKeywords,
  type Marks,
  marksOf,
  refusal,
  type Schema,
  typesOf,
} from './json-schema-keywords.ts';
import {
  comma,
  emptyOr,
  enclosed,
  jsonBoolean,
  jsonInteger,
  jsonNull,
  jsonNumber,
  jsonString,
  jsonValue,
  list,
  member,
  otherString,
} from './json-text.ts';
import { RegexError } from './regex.ts';

/**
 * JSON Schema (2020-12) as a grammar. Every text of the grammar is valid JSON that satisfies the schema; some that would
 * satisfy it are left out, so that the grammar is small: properties come in the schema's order, without others unless `additionalProperties` names
 * them; enumerated values are spelt in one way. What would be satisfied only by chance is refused by name.
 *
 * @param field where the schema stands in the request, for errors
 * @throws PtpError `invalid_argument`
 */
export function jsonSchemaGrammar(schema: unknown, field: string): Expression {
  return new Translation(schema, field).whole();
}

const MOST_DEPTH = 64;
/** Characters of a schema's JSON: what it makes of a grammar is of that size. */
const MOST_TEXT = 100_000;
/** Characters of all its patterns: each class may become some dozens of expressions. */
const MOST_PATTERNS = 20_000;

class Translation {
  readonly #root: unknown;
  readonly #field: string;
  readonly #references = new Map<string, { expression: Expression | undefined }>();
  readonly #marked = new Map<Schema, Marks>();
  #depth = 0;
  #patterns = 0;

  constructor(root: unknown, field: string) {
    this.#root = root;
    this.#field = field;
  }

  whole(): Expression {
    const length = JSON.stringify(this.#root)?.length ?? 0;
    if (length > MOST_TEXT) throw refused(this.#field, `at most ${MOST_TEXT} characters of JSON`, length);
    return this.#grammar(this.#root, this.#field);
  }

  #grammar(schema: unknown, at: string): Expression {
    if (schema === true) return jsonValue;
    const given = checkKeywords(schema, at);
    if (++this.#depth > MOST_DEPTH) throw refused(at, `nested at most ${MOST_DEPTH} deep`);
    try {
      return this.#object(given, at);
    } finally {
      this.#depth--;
    }
  }

  #object(schema: Schema, at: string): Expression {
    if (schema.$ref !== undefined) return this.#reference(schema.$ref, at);
    if (schema.const !== undefined) return literal(JSON.stringify(schema.const));
    if (schema.enum) return choice(...schema.enum.map((value) => literal(JSON.stringify(value))));
    for (const name of ['anyOf', 'oneOf', 'allOf'] as const) {
      const schemas = schema[name];
      if (!schemas) continue;
      const options = schemas.map((each, i) => this.#grammar(each, `${at}.${name}[${i}]`));
      if (name === 'oneOf') this.#checkDisjoint(schemas, `${at}.oneOf`);
      return choice(...options);
    }
    const types = typesOf(schema);
    return types ? choice(...types.map((type) => this.#typed(type, schema, at))) : jsonValue;
  }

  #typed(type: string, schema: Schema, at: string): Expression {
    switch (type) {
      case 'object':
        return this.#members(schema, at);
      case 'array':
        return this.#items(schema, at);
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

  #members(schema: Schema, at: string): Expression {
    const required = new Set(schema.required ?? []);
    const names = Object.keys(schema.properties ?? {});
    const known = names.map((name) => {
      const value = this.#grammar(schema.properties?.[name], `${at}.properties.${name}`);
      return { member: member(literal(JSON.stringify(name)), value), required: required.has(name) };
    });
    const { additionalProperties: more } = schema;
    // a schema that names no properties is for objects of whatever ones
    const open = more ?? !schema.properties;
    const missing = [...required].find((name) => !names.includes(name));
    if (missing !== undefined) throw refused(`${at}.required`, 'names of `properties`', JSON.stringify(missing));
    const others = open === false ? undefined : this.#grammar(open, `${at}.additionalProperties`);
    const further = others && list(member(otherString(names), others));
    const around = known.some((each) => each.required) ? enclosed : emptyOr;
    return around('{', members(known, further), '}');
  }

  #items(schema: Schema, at: string): Expression {
    const { prefixItems = [], items, minItems: least = 0, maxItems: most = Number.POSITIVE_INFINITY } = schema;
    if (least > most) throw refused(`${at}.minItems`, `at most \`maxItems\` (${most})`, least);
    const first = prefixItems.map((each, i) => this.#grammar(each, `${at}.prefixItems[${i}]`));
    const rest = items === false ? undefined : items === undefined ? jsonValue : this.#grammar(items, `${at}.items`);
    if (!rest && least > first.length) throw refused(`${at}.minItems`, `at most ${first.length} items`, least);
    return arrayOf(first.slice(0, Math.min(first.length, most)), rest, least, most);
  }

  #string(schema: Schema, at: string): Expression {
    const { pattern, minLength: least = 0, maxLength: most = Number.POSITIVE_INFINITY, format } = schema;
    if (least > most) throw refused(`${at}.minLength`, `at most \`maxLength\` (${most})`, least);
    const given = format === undefined ? undefined : formatOf(format);
    if (pattern === undefined && !given) return jsonString(least, most);
    if (schema.minLength !== undefined || schema.maxLength !== undefined) {
      const beside = pattern === undefined ? 'format' : 'pattern';
      throw refused(
        `${at}.${schema.minLength === undefined ? 'maxLength' : 'minLength'}`,
        `absent beside \`${beside}\``,
      );
    }
    return pattern === undefined ? (given as Expression) : this.#pattern(pattern, `${at}.pattern`);
  }

  #pattern(pattern: string, at: string): Expression {
    this.#patterns += pattern.length;
    if (this.#patterns > MOST_PATTERNS) {
      throw refused(at, `one of patterns that have at most ${MOST_PATTERNS} characters together`);
    }
    try {
      return jsonStringOf(pattern);
    } catch (error) {
      if (!(error instanceof RegexError)) throw error;
      throw refused(at, `a regular expression that can be followed: ${error.message}`);
    }
  }

  #number(schema: Schema, integer: boolean, at: string): Expression {
    const { minimum, maximum, exclusiveMinimum, exclusiveMaximum, multipleOf } = schema;
    const limits = [minimum, maximum, exclusiveMinimum, exclusiveMaximum, multipleOf];
    if (limits.every((limit) => limit === undefined)) return integer ? jsonInteger : jsonNumber;
    const whole = integer || (multipleOf !== undefined && Number.isInteger(multipleOf));
    if (multipleOf !== undefined && !(Number.isInteger(multipleOf) && multipleOf <= 1000)) {
      throw refused(`${at}.multipleOf`, 'an integer in [1, 1000]', multipleOf);
    }
    const least = Math.max(minimum ?? Number.NEGATIVE_INFINITY, exclusiveMinimum ?? Number.NEGATIVE_INFINITY);
    const most = Math.min(maximum ?? Number.POSITIVE_INFINITY, exclusiveMaximum ?? Number.POSITIVE_INFINITY);
    const numbers = jsonNumberIn({
      least,
      most,
      aboveLeast: least === exclusiveMinimum,
      belowMost: most === exclusiveMaximum,
      integer: whole,
      multipleOf: multipleOf ?? 1,
    });
    if (!numbers) throw refused(at, 'a range that has numbers in it');
    return numbers;
  }

  #reference(pointer: string, at: string): Expression {
    const known = this.#references.get(pointer);
    if (known) return reference(() => known.expression as Expression);
    const entry: { expression: Expression | undefined } = { expression: undefined };
    this.#references.set(pointer, entry);
    entry.expression = this.#grammar(
      this.#pointed(pointer, at),
      `${this.#field}${pointer.slice(1).replaceAll('/', '.')}`,
    );
    return entry.expression;
  }

  /** `oneOf` is `anyOf` where no value can satisfy two of the schemas. */
  #checkDisjoint(schemas: readonly unknown[], at: string): void {
    const marks: Marks[] = [];
    for (const [i, each] of schemas.entries()) {
      const one = this.#marks(this.#resolved(each, `${at}[${i}]`));
      const other = marks.findIndex((before) => !areDisjoint(before, one));
      if (other >= 0) {
        const limit =
          'of schemas that exclude each other by `type` or by a required property of other values; else `anyOf`';
        throw refused(at, limit, `[${other}] and [${i}]`);
      }
      marks.push(one);
    }
  }

  /** Made once for a schema that many refer to. */
  #marks(schema: Schema): Marks {
    return getOr(this.#marked, schema, () => marksOf(schema));
  }

  #resolved(schema: unknown, at: string): Schema {
    for (let hops = 0, given = schema; ; hops++) {
      const { $ref } = (given ?? {}) as Schema;
      if (typeof $ref !== 'string' || hops > MOST_DEPTH) return given as Schema;
      given = this.#pointed($ref, at);
    }
  }

  #pointed(pointer: string, at: string): unknown {
    if (!/^#(\/|$)/.test(pointer))
      throw refused(`${at}.$ref`, 'a reference within the schema, as "#/$defs/name"', pointer);
    const path = pointer
      .split('/')
      .slice(1)
      .map((part) => decoded(part).replaceAll('~1', '/').replaceAll('~0', '~'));
    let schema = this.#root;
    for (const key of path) {
      const object = typeof schema === 'object' && schema !== null && Object.hasOwn(schema, key);
      if (!object) throw refused(`${at}.$ref`, 'a reference to a part of the schema', pointer);
      schema = (schema as Record<string, unknown>)[key];
    }
    return schema;
  }
}

/** Known members in order, the optional ones or not, then further ones. */
function members(
  known: readonly { readonly member: Expression; readonly required: boolean }[],
  further: Expression | undefined,
): Expression {
  // what may follow at the beginning, and after another member
  let first = further ?? nothing;
  let later = further ? optional(sequence(comma, further)) : nothing;
  for (const { member, required } of known.toReversed()) {
    const [here, after] = [sequence(member, later), sequence(comma, member, later)];
    first = required ? here : choice(here, first);
    later = required ? after : choice(after, later);
  }
  return first;
}

/** `first` one after another, then any number of `rest`; between `least` and `most` in all. */
function arrayOf(first: readonly Expression[], rest: Expression | undefined, least: number, most: number): Expression {
  const from = (index: number): Expression => {
    const item = first[index];
    const further = rest && list(rest, Math.max(1, least - index), most - index);
    return item ? sequence(item, after(index + 1)) : (further ?? nothing);
  };
  const after = (index: number): Expression => {
    const ends = index >= least;
    if (index >= most || (!first[index] && !rest)) return nothing;
    const more = sequence(comma, from(index));
    return ends ? choice(nothing, more) : more;
  };
  if (most === 0 || (first.length === 0 && !rest)) return literal('[]');
  return (least === 0 ? emptyOr : enclosed)('[', from(0), ']');
}

/** Part of a URI fragment; as it is where it is not percent-encoded well, so that nothing has that name. */
function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

function refused(field: string, limit: string, got?: unknown): PtpError {
  const value = got === undefined ? '' : `, got ${String(got).slice(0, 80)}`;
  return refusal(field, `must be ${limit}${value}`);
}

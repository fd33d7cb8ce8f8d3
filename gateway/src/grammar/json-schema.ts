import { fieldError, invalidField } from '@ptp/protocol/validation';
import type { Expression } from './expression.ts';
import { type Alternative, UnsupportedError } from './schema/alternatives.ts';
import { Builder } from './schema/build.ts';
import { Emptiness } from './schema/emptiness.ts';
import { Normalizer } from './schema/normalize.ts';
import { References } from './schema/references.ts';
import { Strings } from './schema/strings.ts';
import { memberOf } from './schema/values.ts';
import { Pause } from './slices.ts';

/** Maximum number of characters in a schema as JSON. The size of the grammar is proportional to it. */
const TEXT_LIMIT = 1_000_000;
/** Maximum number of compiled schemas in the cache. */
const CAPACITY = 64;
/** Maximum number of characters in all cached schemas together. */
const CACHED_CHARACTERS_LIMIT = 4_000_000;

export interface SchemaOptions {
  /**
   * True if an object may have properties that its schema does not declare, as in the standard. By default, an object
   * has only the declared properties if its schema declares any. `additionalProperties` takes precedence.
   */
  readonly open?: boolean;
}

/** Most recently compiled schemas, keyed by their text. The most recent is last. */
const compiled = new Map<string, Expression>();
let cachedCharacters = 0;

/**
 * Compiles a JSON Schema (draft 4 to 2020-12) to a grammar. Every text that matches the grammar is JSON that satisfies
 * the schema. To stay small, the grammar omits some valid texts: properties must follow the order of the schema, and
 * strings of an enumeration have one spelling. Keywords that the grammar cannot enforce cause an error.
 *
 * @param field path of the schema in the request, for errors
 * @throws PtpError `invalid_argument`, naming the keyword
 * @throws Pause inside `inSlices`, which then calls this function again
 */
export function jsonSchemaGrammar(schema: unknown, field: string, options: SchemaOptions = {}): Expression {
  const text = JSON.stringify(schema) ?? '';
  if (text.length > TEXT_LIMIT) {
    throw fieldError(field, `must have at most ${TEXT_LIMIT} characters as JSON, got ${text.length}`);
  }
  const key = `${options.open ?? false} ${text}`;
  const pausedKey = `${field} ${key}`;
  const grammar = compiled.get(key) ?? naming(() => resumed(pausedKey, () => compilation(schema, field, options)));
  paused.delete(pausedKey); // Another request may have compiled the same schema in another field.
  cachedCharacters += compiled.delete(key) ? 0 : key.length;
  compiled.set(key, grammar);
  for (const oldest of compiled.keys()) {
    if (compiled.size <= CAPACITY && cachedCharacters <= CACHED_CHARACTERS_LIMIT) break;
    compiled.delete(oldest);
    cachedCharacters -= oldest.length;
  }
  return grammar;
}

/** Compilations that have paused, keyed by field and schema. */
const paused = new Map<string, () => Expression>();

/** Starts a compilation, or continues it after a pause. */
function resumed(key: string, start: () => () => Expression): Expression {
  const compile = paused.get(key) ?? start();
  paused.delete(key);
  try {
    return compile();
  } catch (error) {
    if (error instanceof Pause) paused.set(key, compile);
    throw error;
  }
}

/** Turns an UnsupportedError into an error of the request that names the field. */
function naming(build: () => Expression): Expression {
  try {
    return build();
  } catch (error) {
    if (error instanceof UnsupportedError) throw fieldError(error.at, error.message);
    throw error;
  }
}

/** Returns a function that compiles a schema. After a pause, call it again to continue. */
function compilation(root: unknown, field: string, { open = false }: SchemaOptions): () => Expression {
  const strings = new Strings();
  let normalizer: Normalizer | undefined;
  const emptiness = new Emptiness(() => normalizer as Normalizer, strings, open);
  normalizer = new Normalizer(
    new References(root),
    isOldDraft(root),
    (value, alternative) => emptiness.satisfies(value, alternative),
    (schemas) => emptiness.isEmpty(schemas),
  );
  const isObject = !open && describesObject(root);
  const all = [...(isObject ? [normalizer.item({ type: 'object' }, field)] : []), normalizer.item(root, field)];
  const builder = new Builder(emptiness.schemas);
  return () => {
    if (emptiness.isEmpty(all)) throw unsatisfiable(root, normalizer.normal(all), field);
    return builder.whole(all, field);
  };
}

/** Returns true if keywords next to `$ref` have no effect. */
function isOldDraft(root: unknown): boolean {
  const dialect = typeof root === 'object' && root !== null ? memberOf(root, '$schema') : undefined;
  return typeof dialect === 'string' && /draft-0[3-7]/.test(dialect);
}

/** Returns true if a schema without `type` has keywords for objects. Its author surely means an object. */
function describesObject(root: unknown): boolean {
  if (typeof root !== 'object' || root === null || memberOf(root, 'type') !== undefined) return false;
  return ['properties', 'patternProperties', 'additionalProperties', 'required'].some(
    (name) => memberOf(root, name) !== undefined,
  );
}

/** Returns the error for a schema without values. The error names the reason if the reason lies in the root. */
function unsatisfiable(root: unknown, alternatives: readonly Alternative[], field: string): Error {
  const schema = (typeof root === 'object' && root !== null ? root : {}) as Record<string, unknown>;
  for (const [min, max] of [
    ['minItems', 'maxItems'],
    ['minLength', 'maxLength'],
    ['minProperties', 'maxProperties'],
  ] as const) {
    const [least, most] = [schema[min], schema[max]];
    if (typeof least === 'number' && typeof most === 'number' && least > most) {
      return invalidField(`${field}.${min}`, `at most \`${max}\` (${most})`, least);
    }
  }
  for (const name of ['enum', 'const'] as const) {
    if (schema[name] !== undefined && schema.type !== undefined) {
      return fieldError(`${field}.${name}`, `must have a value of \`type\` (${[schema.type].flat().join(', ')})`);
    }
  }
  if (alternatives.length > 0 && alternatives.every(({ type }) => type === 'number')) {
    return fieldError(field, 'must allow at least one number: its range is empty');
  }
  return fieldError(field, 'must allow some value: no value satisfies all of its keywords');
}

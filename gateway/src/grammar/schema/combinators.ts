import { fieldError } from '@ptp/protocol/validation';
import {
  type Alternative,
  anyObject,
  anything,
  type Conjunction,
  type Item,
  UnsupportedError,
} from './alternatives.ts';
import type { Applicators } from './keyword-alternatives.ts';
import { checkNames, type Schema } from './keywords.ts';
import { exclude } from './one-of.ts';
import { entriesOf } from './values.ts';

/** Returns the alternatives of the keywords that do not depend on the type of the value. */
export function combinedAlternatives(
  schema: Partial<Schema>,
  source: unknown,
  at: string,
  to: Applicators,
): readonly Alternative[] {
  let all: readonly Alternative[] = anything;
  const restrict = (alternatives: readonly Alternative[]) => {
    all = to.intersection(all, alternatives, at);
  };
  const { $ref, enum: values, allOf = [], anyOf, oneOf, not } = schema;
  if ('const' in schema && schema.const !== undefined) restrict([{ type: 'values', values: [schema.const] }]);
  if (values) restrict([{ type: 'values', values }]);
  if ($ref !== undefined) {
    const target = to.references.resolve($ref, source as object, at);
    restrict(to.normal(to.conjunction(target, targetPath($ref, at))));
  }
  for (const [i, each] of allOf.entries()) restrict(to.normal(to.conjunction(each, `${at}.allOf[${i}]`)));
  if (anyOf) restrict(anyOf.flatMap((each, i) => to.normal(to.conjunction(each, `${at}.anyOf[${i}]`))));
  if (oneOf) restrict(exclude(oneOf, `${at}.oneOf`, to));
  if (not !== undefined) restrict(named(`${at}.not`, () => to.normal([to.complement(to.item(not, `${at}.not`))])));
  if (schema.if !== undefined) restrict(named(`${at}.if`, () => conditional(schema, at, to)));
  for (const { field, name, dependent } of dependencies(schema, at, to)) {
    restrict(named(field, () => dependency(name, dependent, to, at)));
  }
  return all;
}

/** Returns the path of a `$ref`'s target, for errors. */
function targetPath(reference: string, at: string): string {
  const root = at.split('.')[0] as string;
  return reference.startsWith('#') ? `${root}${reference.slice(1).replaceAll('/', '.')}` : `${at}.$ref`;
}

/** Turns an UnsupportedError into an error that names the keyword which needs the complement. */
function named<T>(at: string, compute: () => T): T {
  try {
    return compute();
  } catch (error) {
    if (error instanceof UnsupportedError) throw fieldError(at, `is not supported: \`${error.at}\` ${error.message}`);
    throw error;
  }
}

function conditional(schema: Partial<Schema>, at: string, to: Applicators): readonly Alternative[] {
  const condition = to.item(schema.if, `${at}.if`);
  const branch = (keyword: 'then' | 'else', first: Item) => {
    const value = schema[keyword];
    return value === undefined ? [first] : [first, ...to.conjunction(value, `${at}.${keyword}`)];
  };
  if (schema.then === undefined && schema.else === undefined) return anything;
  return [...to.normal(branch('then', condition)), ...to.normal(branch('else', to.complement(condition)))];
}

type Dependent = { readonly required: readonly string[] } | { readonly schemas: Conjunction };

/** Requirements of a property, from the keyword at `field`. */
interface Dependency {
  readonly field: string;
  readonly name: string;
  readonly dependent: Dependent;
}

/** Returns the requirements of each property, from `dependentRequired`, `dependentSchemas` and `dependencies`. */
function dependencies(schema: Partial<Schema>, at: string, to: Applicators): Dependency[] {
  const keywords = ['dependentRequired', 'dependentSchemas', 'dependencies'] as const;
  return keywords.flatMap((keyword) =>
    entriesOf(schema[keyword] ?? {}).map(([name, value]): Dependency => {
      const field = `${at}.${keyword}.${name}`;
      const isNames = keyword === 'dependentRequired' || (keyword === 'dependencies' && Array.isArray(value));
      const dependent = isNames ? { required: checkNames(value, field) } : { schemas: to.conjunction(value, field) };
      return { field: `${at}.${keyword}`, name, dependent };
    }),
  );
}

function dependency(name: string, dependent: Dependent, to: Applicators, at: string): readonly Alternative[] {
  const nothing = [to.item(false, at)];
  const scope = { properties: new Map([[name, nothing]]), patterns: [], additional: undefined, silent: true };
  const without: Alternative[] = [
    { ...anyObject, scopes: [scope] },
    ...anything.filter(({ type }) => type !== 'object'),
  ];
  const required = 'required' in dependent ? [...new Set([name, ...dependent.required])] : [name];
  const present = [{ ...anyObject, required }];
  return [
    ...without,
    ...('schemas' in dependent ? to.intersection(present, to.normal(dependent.schemas), at) : present),
  ];
}

import type { Expression } from '../expression.ts';
import { getOrCreate } from '../get-or-create.ts';
import { numberInRange } from '../json-numbers.ts';
import { jsonInteger, jsonNumber } from '../json-text.ts';
import type { NumberAlternative } from './alternatives.ts';
import { decimalKey } from './decimal.ts';

/** Maximum number of cached expressions. */
const CAPACITY = 256;
/** Expressions by the key of their limits. Wrapped in objects, so that an empty range is cached too. */
const expressions = new Map<string, { readonly expression: Expression | undefined }>();

/** Matches the numbers of an alternative. Returns undefined if no number satisfies the alternative. */
export function numberExpression(alternative: NumberAlternative): Expression | undefined {
  const { integer, min, max, multipleOf } = alternative;
  if (!min && !max && !multipleOf) return integer ? jsonInteger : jsonNumber;
  if (expressions.size >= CAPACITY) expressions.clear();
  const keys = [min, max].map((limit) => limit && `${decimalKey(limit.value)} ${limit.exclusive}`);
  const key = [integer, ...keys, multipleOf && decimalKey(multipleOf)].join();
  return getOrCreate(expressions, key, () => ({ expression: numberInRange(alternative) })).expression;
}

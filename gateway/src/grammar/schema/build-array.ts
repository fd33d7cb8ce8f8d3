import { fieldError } from '@ptp/protocol/validation';
import { choice, type Expression, empty, lazy } from '../expression.ts';
import { getOrCreate } from '../get-or-create.ts';
import { arrayOf, bracketedItems, itemThen, jsonText, list, optionalList } from '../json-text.ts';
import { type ArrayAlternative, itemSchemas } from './alternatives.ts';
import type { Builder } from './build.ts';
import { joined } from './intersect.ts';
import { finiteValues, longestArray } from './plans.ts';

/** Maximum number of items in an array with `contains`, because each index has its own expression. */
const CONTAINS_LIMIT = 1000;
/** Maximum number of different values with `uniqueItems`, because the grammar keeps track of the remaining values. */
const UNIQUE_LIMIT = 100;

/** Matches the arrays of an alternative. Returns undefined if no array satisfies the alternative. */
export function arrayExpression(array: ArrayAlternative, builder: Builder, at: string): Expression | undefined {
  const { isEmpty } = builder.schemas;
  const longest = longestArray(array, isEmpty);
  if (array.min > longest) return undefined;
  const shorter = { ...array, max: longest };
  if (array.unique && longest > 1) return uniqueItems(shorter, builder, at);
  if (array.contains.length > 0) return containing(shorter, builder, at);
  const prefix = array.prefix.slice(0, longest);
  const first = prefix.map((each, i) => builder.value(each, `${at}.prefixItems[${i}]`));
  const rest = longest > prefix.length ? builder.value(array.items ?? [], `${at}.items`) : undefined;
  return arrayOf(first, rest, array.min, longest);
}

/** Matches arrays of different values from a finite set. */
function uniqueItems(array: ArrayAlternative, builder: Builder, at: string): Expression | undefined {
  const values = finiteValues(array.items ?? [], builder.schemas);
  if (!values || array.prefix.length > 0 || array.contains.length > 0) {
    throw fieldError(`${at}.uniqueItems`, 'is not supported unless the items are an enumeration');
  }
  if (values.length > UNIQUE_LIMIT) {
    throw fieldError(`${at}.uniqueItems`, `must have at most ${UNIQUE_LIMIT} different values, got ${values.length}`);
  }
  const max = Math.min(array.max, values.length);
  if (array.min > max) return undefined;
  const texts = values.map(jsonText);
  const rests = new Map<string, Expression>();
  /** Matches the items after the first `count`. @param left indices of the values that are not used yet */
  const rest = (left: readonly number[], count: number): Expression =>
    getOrCreate(rests, left.join(), () => {
      if (count >= max) return empty;
      const more = left.map((index) => {
        // Lazy, because a text takes only one of the values here.
        const after = lazy(() =>
          rest(
            left.filter((other) => other !== index),
            count + 1,
          ),
        );
        return itemThen(count > 0, texts[index] as Expression, after);
      });
      return choice(...(count >= array.min ? [empty] : []), ...more);
    });
  return bracketedItems(rest([...values.keys()], 0), array.min > 0);
}

/** Matches arrays in which at least one item satisfies the schema of `contains`. */
function containing(array: ArrayAlternative, builder: Builder, at: string): Expression | undefined {
  const { isEmpty } = builder.schemas;
  const [found, another] = array.contains;
  const { min, max, prefix } = array;
  const counted = max === Number.POSITIVE_INFINITY ? Math.max(prefix.length, min) : max;
  if (another || !found || counted > CONTAINS_LIMIT) {
    throw fieldError(`${at}.contains`, `is supported once, in arrays of at most ${CONTAINS_LIMIT} items`);
  }
  const item = (index: number, isFound: boolean): Expression | undefined => {
    const schemas = isFound ? joined(itemSchemas(array, index), found) : itemSchemas(array, index);
    return isEmpty(schemas) ? undefined : builder.value(schemas, `${at}.items`);
  };
  const rests = new Map<string, Expression | undefined>();
  const rest = (index: number, isFound: boolean): Expression | undefined => {
    const key = `${index} ${isFound}`;
    if (!rests.has(key)) rests.set(key, compute(index, isFound));
    return rests.get(key);
  };
  for (let index = counted; index >= 0; index--) for (const isFound of [true, false]) rest(index, isFound);
  const items = rest(0, false);
  return items && bracketedItems(items, true);

  function compute(index: number, isFound: boolean): Expression | undefined {
    if (index === counted) return last(index, isFound);
    const options = [
      ...(isFound && index >= min ? [empty] : []),
      ...step(index, item(index, false), rest(index + 1, isFound)),
      ...(isFound ? [] : step(index, item(index, true), rest(index + 1, true))),
    ];
    return options.length > 0 ? choice(...options) : undefined;
  }

  /** Matches the items from index `counted` on. */
  function last(index: number, isFound: boolean): Expression | undefined {
    const others = max === Number.POSITIVE_INFINITY ? item(index, false) : undefined;
    const more = others ? optionalList(index > 0, others, Number.POSITIVE_INFINITY) : empty;
    if (isFound) return more;
    const match = max === Number.POSITIVE_INFINITY ? item(index, true) : undefined;
    if (!match) return undefined;
    const end = others ? optionalList(true, others, Number.POSITIVE_INFINITY) : empty;
    const at = (isFirst: boolean) => itemThen(!isFirst, match, end);
    if (!others) return at(index === 0);
    const after = itemThen(index > 0, list(others, 1), at(false));
    return choice(at(index === 0), after);
  }

  function step(index: number, first: Expression | undefined, after: Expression | undefined): Expression[] {
    return first && after ? [itemThen(index > 0, first, after)] : [];
  }
}

import { fieldError } from '@ptp/protocol/validation';
import { type Alternative, type Item, UnsupportedError } from './alternatives.ts';
import { areDisjoint, type Features, featuresOf } from './disjoint.ts';
import type { Applicators } from './keyword-alternatives.ts';
import { memberOf } from './values.ts';

/** Maximum number of schemas whose pairs are intersected. The schemas of a larger `oneOf` must differ in a constant. */
const PAIRS_LIMIT = 100;
/** Maximum number of references to follow, because references may form a cycle. */
const DEPTH_LIMIT = 64;

/**
 * Returns the values that satisfy exactly one of the schemas. If two schemas do not exclude each other, the values that
 * satisfy both are excluded.
 */
export function exclude(schemas: readonly unknown[], at: string, to: Applicators): readonly Alternative[] {
  const items = schemas.map((schema, i) => to.item(target(schema, `${at}[${i}]`, to), `${at}[${i}]`));
  const features = items.map((item) => featuresOf(item.schema));
  const out: Alternative[] = [];
  let conflict: [number, number] | undefined;
  for (const [i, item] of items.entries()) {
    const others: Item[] = [];
    for (const [j, other] of items.entries()) {
      if (i === j || areDisjoint(features[i] as Features, features[j] as Features)) continue;
      const isPair = schemas.length <= PAIRS_LIMIT && item !== other;
      if (isPair && to.isEmpty([item, other])) continue;
      conflict ??= i < j ? [i, j] : [j, i];
      if (!isPair && item !== other) throw indistinct(at, conflict, '');
      others.push(to.complement(other));
      // No value satisfies only one of two equal schemas.
      if (item === other) break;
    }
    try {
      out.push(...to.normal([item, ...others]));
    } catch (error) {
      if (!(error instanceof UnsupportedError)) throw error;
      throw indistinct(at, conflict, ` (\`${error.at}\` ${error.message})`);
    }
  }
  if (out.length === 0 && conflict) throw indistinct(at, conflict, '');
  return out;
}

function indistinct(at: string, conflict: [number, number] | undefined, reason: string): Error {
  const problem = 'must have schemas that exclude each other by `type` or by different values of a required property';
  const [first, second] = conflict ?? [0, 0];
  return fieldError(at, `${problem}, but [${first}] and [${second}] do not${reason}; use \`anyOf\` instead`);
}

/** Returns the schema, or its target if the schema consists only of a `$ref`. */
function target(schema: unknown, at: string, to: Applicators): unknown {
  let current = schema;
  for (let hops = 0; hops < DEPTH_LIMIT; hops++) {
    if (typeof current !== 'object' || current === null) return current;
    const reference = memberOf(current, '$ref');
    const isOnly = typeof reference === 'string' && (to.ignoresSiblings || Object.keys(current).length === 1);
    if (!isOnly) return current;
    current = to.references.resolve(reference, current, at);
  }
  return current;
}

import { checkpoint } from '../slices.ts';
import {
  type Alternative,
  type ArrayAlternative,
  type Conjunction,
  itemSchemas,
  type ObjectAlternative,
} from './alternatives.ts';
import { compareDecimals, decimalOf, isMultipleOf } from './decimal.ts';
import { joined } from './intersect.ts';
import { conjunctionKey, type Normalizer } from './normalize.ts';
import { numberExpression } from './numbers.ts';
import { finiteValues, knownNames, longestArray, propertySchemas, regionsOf, type Schemas } from './plans.ts';
import type { Strings } from './strings.ts';
import { entriesOf, memberOf, valueKey, valueType } from './values.ts';

/** Decides which schemas have values, and which values satisfy a schema. */
export class Emptiness {
  readonly schemas: Schemas;
  readonly #known = new Map<string, boolean>();
  readonly #inProgress = new Set<string>();
  /** Number of times a result was based on the assumption that a schema in progress has no values. */
  #assumptions = 0;

  constructor(normalizer: () => Normalizer, strings: Strings, isOpen: boolean) {
    this.schemas = {
      strings,
      isOpen,
      normal: (schemas) => normalizer().normal(schemas),
      isEmpty: (schemas) => this.isEmpty(schemas),
    };
  }

  /** Returns true if no value satisfies all schemas. Values are finite, so a schema with endless nesting is empty. */
  isEmpty(schemas: Conjunction): boolean {
    if (schemas.length === 0) return false;
    const key = conjunctionKey(schemas);
    const known = this.#known.get(key);
    if (known !== undefined) return known;
    if (this.#inProgress.has(key)) {
      this.#assumptions++;
      return true;
    }
    const assumptions = this.#assumptions;
    this.#inProgress.add(key);
    try {
      const isEmpty = this.schemas.normal(schemas).every((alternative) => this.#hasNoValues(alternative));
      if (!isEmpty || this.#assumptions === assumptions || this.#inProgress.size === 1) {
        this.#known.set(key, isEmpty);
        checkpoint();
      }
      return isEmpty;
    } finally {
      this.#inProgress.delete(key);
    }
  }

  #hasNoValues(alternative: Alternative): boolean {
    switch (alternative.type) {
      case 'number':
        return numberExpression(alternative) === undefined;
      case 'string':
        return this.schemas.strings.state(alternative) === undefined;
      case 'array':
        return this.#hasNoArrays(alternative);
      case 'object':
        return this.#hasNoObjects(alternative);
      default:
        return false;
    }
  }

  #hasNoArrays(array: ArrayAlternative): boolean {
    if (array.min === 0 && array.contains.length === 0) return false;
    const { isEmpty } = this.schemas;
    const longest = longestArray(array, isEmpty);
    if (array.min > longest) return true;
    const values = array.unique ? finiteValues(array.items ?? [], this.schemas) : undefined;
    if (values && array.prefix.length === 0 && array.min > values.length) return true;
    const positions = Math.min(longest, array.prefix.length + 1);
    return array.contains.some((found) =>
      Array.from({ length: positions }, (_, i) => joined(itemSchemas(array, i), found)).every(isEmpty),
    );
  }

  #hasNoObjects(object: ObjectAlternative): boolean {
    const isPossible = (name: string) => {
      const values = propertySchemas(object, name, this.schemas);
      return values !== undefined && !this.isEmpty(values);
    };
    if (object.required.length > object.max || !object.required.every(isPossible)) return true;
    if (object.min <= object.required.length) return false;
    const possible = knownNames(object).filter(isPossible).length;
    return possible < object.min && regionsOf(object, this.schemas).length === 0;
  }

  /** Returns true if a value satisfies an alternative. */
  satisfies(value: unknown, alternative: Alternative): boolean {
    const type = valueType(value);
    if (alternative.type === 'values') return alternative.values.some((each) => valueKey(each) === valueKey(value));
    if (alternative.type !== type) return false;
    switch (alternative.type) {
      case 'number': {
        const number = decimalOf(value as number);
        if (!number) return false;
        const { integer, min, max, multipleOf } = alternative;
        const order = (limit: typeof min, sign: number) => {
          const difference = limit ? compareDecimals(number, limit.value) * sign : 1;
          return difference > 0 || (difference === 0 && !limit?.exclusive);
        };
        if (integer && number.scale > 0) return false;
        return order(min, 1) && order(max, -1) && (!multipleOf || isMultipleOf(number, multipleOf));
      }
      case 'string': {
        const text = value as string;
        return !alternative.excluded.includes(text) && this.schemas.strings.matches(text, alternative);
      }
      case 'array':
        return this.#satisfiesArray(value as unknown[], alternative);
      case 'object':
        return this.#satisfiesObject(value as object, alternative);
      default:
        return true;
    }
  }

  #all(value: unknown, schemas: Conjunction): boolean {
    return this.schemas.normal(schemas).some((alternative) => this.satisfies(value, alternative));
  }

  #satisfiesArray(value: readonly unknown[], array: ArrayAlternative): boolean {
    if (value.length < array.min || value.length > array.max) return false;
    if (array.unique && new Set(value.map(valueKey)).size < value.length) return false;
    if (!array.contains.every((found) => value.some((each) => this.#all(each, found)))) return false;
    return value.every((each, i) => this.#all(each, itemSchemas(array, i)));
  }

  #satisfiesObject(value: object, object: ObjectAlternative): boolean {
    const entries = entriesOf(value);
    if (entries.length < object.min || entries.length > object.max) return false;
    if (!object.required.every((name) => memberOf(value, name) !== undefined)) return false;
    return entries.every(([name, each]) => {
      const schemas = propertySchemas(object, name, this.schemas);
      return schemas !== undefined && this.#all(each, schemas);
    });
  }
}

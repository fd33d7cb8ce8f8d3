import { fieldError } from '@ptp/protocol/validation';
import { getOrCreate } from '../get-or-create.ts';
import { checkpoint, Pause } from '../slices.ts';
import { type Alternative, anything, type Conjunction, type Item, UnsupportedError } from './alternatives.ts';
import { intersect, joined, type Satisfies, withMergedValues } from './intersect.ts';
import { type Applicators, keywordAlternatives } from './keyword-alternatives.ts';
import { complementOf } from './negate.ts';
import type { References } from './references.ts';

/** Maximum number of alternatives of one value, because the alternatives of several `anyOf` multiply. */
const ALTERNATIVES_LIMIT = 4096;
/** Maximum number of pairs of alternatives to intersect in one schema. Also counts pairs without common values. */
const PAIRS_LIMIT = 100_000;

/**
 * Brings schemas into normal form: a list of alternatives, each of one type, whose constraints must all hold. `allOf`,
 * `$ref` and keywords next to each other are intersected. `anyOf` becomes a union. `oneOf`, `not` and `if` use
 * complements. Schemas of members and items stay conjunctions, which are normalized only when needed.
 */
export class Normalizer implements Applicators {
  readonly references: References;
  readonly ignoresSiblings: boolean;
  readonly isEmpty: Applicators['isEmpty'];
  readonly #items = new Map<unknown, Item>();
  readonly #negated = new Map<Item, Item>();
  readonly #normalItems = new Map<Item, readonly Alternative[]>();
  readonly #normal = new Map<string, readonly Alternative[]>();
  readonly #inProgress = new Set<Item>();
  /** Number of pairs compared so far. */
  #pairs = 0;
  /** Number of pairs compared for the result that is being computed, without those of results that it is based on. */
  #unfinishedPairs = 0;
  readonly #satisfies: Satisfies;

  /** @param isEmpty function that returns true if no value satisfies the schemas */
  constructor(references: References, ignoresSiblings: boolean, satisfies: Satisfies, isEmpty: Applicators['isEmpty']) {
    this.references = references;
    this.ignoresSiblings = ignoresSiblings;
    this.#satisfies = satisfies;
    this.isEmpty = isEmpty;
  }

  item(schema: unknown, at: string): Item {
    // Primitives (true, false, and invalid schemas) are equal wherever they stand.
    return getOrCreate(this.#items, schema, () => this.#newItem(schema, at, false));
  }

  /** Returns the schemas that a value must satisfy to satisfy one schema. */
  conjunction(schema: unknown, at: string): Conjunction {
    return schema === true ? [] : [this.item(schema, at)];
  }

  complement(item: Item): Item {
    return getOrCreate(this.#negated, item, () => {
      const other = this.#newItem(item.schema, item.at, !item.negated);
      this.#negated.set(other, item);
      return other;
    });
  }

  #newItem = (schema: unknown, at: string, negated: boolean): Item => ({ id: this.#nextId++, schema, negated, at });
  #nextId = 0;

  /** Returns the alternatives of the values that satisfy all schemas. */
  normal(schemas: Conjunction): readonly Alternative[] {
    const key = conjunctionKey(schemas);
    const known = this.#normal.get(key);
    if (known) return known;
    const result = this.#counted(() => this.#intersected(schemas));
    this.#normal.set(key, result);
    checkpoint();
    return result;
  }

  /** Computes a result that is stored. After a pause, the next slice compares the pairs of an unfinished result again. */
  #counted<T>(compute: () => T): T {
    const outer = this.#unfinishedPairs;
    this.#unfinishedPairs = 0;
    try {
      return compute();
    } catch (error) {
      if (error instanceof Pause) this.#pairs -= this.#unfinishedPairs;
      throw error;
    } finally {
      this.#unfinishedPairs = outer;
    }
  }

  #intersected(schemas: Conjunction): readonly Alternative[] {
    if (schemas.some((item) => schemas.includes(this.complement(item)))) return [];
    return schemas.reduce<readonly Alternative[]>(
      (both, item) => this.intersection(both, this.#normalItem(item), item.at),
      anything,
    );
  }

  intersection(a: readonly Alternative[], b: readonly Alternative[], at: string): readonly Alternative[] {
    if (a === anything) return b;
    if (b === anything) return a;
    const [ones, others] = [withMergedValues(a), withMergedValues(b)];
    this.#pairs += ones.length * others.length;
    this.#unfinishedPairs += ones.length * others.length;
    if (this.#pairs > PAIRS_LIMIT) {
      throw fieldError(at, `must need at most ${PAIRS_LIMIT} comparisons of two alternatives, got ${this.#pairs}`);
    }
    const out: Alternative[] = [];
    for (const one of ones) {
      for (const other of others) {
        const both = intersect(one, other, this.#satisfies);
        if (both) out.push(both);
        if (out.length > ALTERNATIVES_LIMIT) {
          throw fieldError(at, `must have at most ${ALTERNATIVES_LIMIT} combinations of alternatives`);
        }
      }
    }
    return out;
  }

  #normalItem(item: Item): readonly Alternative[] {
    return getOrCreate(this.#normalItems, item, () => {
      if (this.#inProgress.has(item)) throw fieldError(item.at, 'must not refer to itself without a property between');
      this.#inProgress.add(item);
      try {
        return this.#counted(() =>
          item.negated ? this.#complement(this.complement(item)) : keywordAlternatives(item, this),
        );
      } finally {
        this.#inProgress.delete(item);
      }
    });
  }

  #complement(item: Item): readonly Alternative[] {
    const complements = (schemas: Conjunction) => schemas.map((each) => [this.complement(each)]);
    const nothing = [this.item(false, item.at)];
    try {
      return this.#normalItem(item)
        .map((alternative) => complementOf(alternative, complements, nothing, item.at))
        .reduce<readonly Alternative[]>((both, next) => this.intersection(both, next, item.at), anything);
    } catch (error) {
      if (!(error instanceof UnsupportedError)) throw error;
      throw new UnsupportedError(error.at, 'is not supported where values must not satisfy it');
    }
  }
}

/** Returns a key that is equal for conjunctions of the same schemas. */
export const conjunctionKey = (schemas: Conjunction): string =>
  joined(schemas)
    .map(({ id }) => id)
    .sort((a, b) => a - b)
    .join();

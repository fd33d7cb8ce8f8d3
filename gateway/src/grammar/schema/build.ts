import { fieldError } from '@ptp/protocol/validation';
import { choice, type Expression, reference } from '../expression.ts';
import { getOrCreate } from '../get-or-create.ts';
import { jsonBoolean, jsonNull, jsonString, jsonTexts, jsonValue, type ObjectMember, quoted } from '../json-text.ts';
import { checkpoint } from '../slices.ts';
import { type Alternative, anyString, anything, type Conjunction, type ObjectAlternative } from './alternatives.ts';
import { arrayExpression } from './build-array.ts';
import { objectExpression } from './build-object.ts';
import { conjunctionKey } from './normalize.ts';
import { numberExpression } from './numbers.ts';
import type { Schemas } from './plans.ts';

/** Maximum nesting depth of schemas. */
const DEPTH_LIMIT = 64;

/** Grammar of a conjunction of schemas. */
interface Entry {
  expression: Expression | undefined;
  isInProgress: boolean;
}

/** Builds the grammar of schemas in normal form. Equal schemas share one expression, which may refer to itself. */
export class Builder {
  readonly schemas: Schemas;
  /** Expressions by the key of their schemas. The expression is undefined until it has been built. */
  readonly #built = new Map<string, Entry>();
  /** Entries to which expressions refer, with functions that build them. */
  readonly #referred = new Map<Entry, () => Expression>();
  /** Expressions of alternatives. A slice of the compilation finds those of earlier slices here. */
  readonly #builtAlternatives = new Map<Alternative, Expression | undefined>();
  readonly #members = new Map<ObjectAlternative, Map<string, ObjectMember | undefined>>();
  #depth = 0;

  constructor(schemas: Schemas) {
    this.schemas = schemas;
  }

  /**
   * Returns the grammar of the values that satisfy all schemas. At least one value must satisfy them.
   *
   * @param at path of the schemas in the request, for errors
   */
  value(schemas: Conjunction, at: string): Expression {
    if (schemas.length === 0) return jsonValue;
    // Expressions built before a pause refer to their entry, so the entry stays the same.
    const entry = getOrCreate(this.#built, conjunctionKey(schemas), () => ({
      expression: undefined,
      isInProgress: false,
    }));
    if (entry.expression) return entry.expression;
    if (entry.isInProgress) {
      this.#referred.set(entry, () => this.value(schemas, at));
      return reference(() => entry.expression as Expression);
    }
    if (this.#depth >= DEPTH_LIMIT) throw fieldError(at, `must be nested at most ${DEPTH_LIMIT} levels deep`);
    entry.isInProgress = true;
    this.#depth++;
    try {
      entry.expression = this.#alternatives(this.schemas.normal(schemas), schemas.at(-1)?.at ?? at);
    } finally {
      this.#depth--;
      entry.isInProgress = false;
    }
    checkpoint();
    return entry.expression;
  }

  /**
   * Returns the grammar of a whole schema (`value`). After a pause, stored expressions may refer to an entry that the
   * pause has left unfinished, so all of these are built too.
   */
  whole(schemas: Conjunction, at: string): Expression {
    const expression = this.value(schemas, at);
    for (const [entry, build] of this.#referred) if (!entry.expression) build();
    return expression;
  }

  /**
   * Returns the members of an object that have been built, also in earlier slices of the compilation, by name. Names
   * without values have none.
   */
  membersOf(object: ObjectAlternative): Map<string, ObjectMember | undefined> {
    return getOrCreate(this.#members, object, () => new Map());
  }

  #alternatives(alternatives: readonly Alternative[], at: string): Expression {
    if (alternatives === anything) return jsonValue;
    return choice(
      ...alternatives.flatMap((each) => {
        if (!this.#builtAlternatives.has(each)) this.#builtAlternatives.set(each, this.#alternative(each, at));
        return this.#builtAlternatives.get(each) ?? [];
      }),
    );
  }

  #alternative(alternative: Alternative, at: string): Expression | undefined {
    switch (alternative.type) {
      case 'values':
        return jsonTexts(alternative.values);
      case 'null':
        return jsonNull;
      case 'boolean':
        return jsonBoolean;
      case 'number':
        return numberExpression(alternative);
      case 'string': {
        if (alternative === anyString) return jsonString();
        const state = this.schemas.strings.state(alternative);
        return state && quoted(state);
      }
      case 'array':
        return arrayExpression(alternative, this, alternative.at || at);
      case 'object':
        return objectExpression(alternative, this, alternative.at || at);
    }
  }
}

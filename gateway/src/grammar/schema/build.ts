import { fieldError } from '@ptp/protocol/validation';
import { choice, type Expression, reference } from '../expression.ts';
import { jsonBoolean, jsonNull, jsonString, jsonTexts, jsonValue, quoted } from '../json-text.ts';
import { type Alternative, anyString, anything, type Conjunction } from './alternatives.ts';
import { arrayExpression } from './build-array.ts';
import { objectExpression } from './build-object.ts';
import { conjunctionKey } from './normalize.ts';
import { numberExpression } from './numbers.ts';
import type { Schemas } from './plans.ts';

/** Maximum nesting depth of schemas. */
const DEPTH_LIMIT = 64;

/** Builds the grammar of schemas in normal form. Equal schemas share one expression, which may refer to itself. */
export class Builder {
  readonly schemas: Schemas;
  /** Expressions by the key of their schemas. The expression is undefined while it is being built. */
  readonly #built = new Map<string, { expression: Expression | undefined }>();
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
    const key = conjunctionKey(schemas);
    const known = this.#built.get(key);
    if (known) return known.expression ?? reference(() => known.expression as Expression);
    if (this.#depth >= DEPTH_LIMIT) throw fieldError(at, `must be nested at most ${DEPTH_LIMIT} levels deep`);
    const entry: { expression: Expression | undefined } = { expression: undefined };
    this.#built.set(key, entry);
    this.#depth++;
    entry.expression = this.#alternatives(this.schemas.normal(schemas), schemas.at(-1)?.at ?? at);
    this.#depth--;
    return entry.expression;
  }

  #alternatives(alternatives: readonly Alternative[], at: string): Expression {
    if (alternatives === anything) return jsonValue;
    return choice(...alternatives.flatMap((each) => this.#alternative(each, at) ?? []));
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

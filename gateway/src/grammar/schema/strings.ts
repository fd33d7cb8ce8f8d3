import { fieldError } from '@ptp/protocol/validation';
import { getOrCreate } from '../get-or-create.ts';
import { checkPatternLength, patternTerm } from '../regex.ts';
import { CharacterDfa, type CharacterState } from '../strings/character-dfa.ts';
import { RegexError } from '../strings/pattern-syntax.ts';
import { type Term, Terms } from '../strings/terms.ts';
import type { Pattern, StringAlternative } from './alternatives.ts';
import { isFormatPattern } from './formats.ts';

/**
 * Maximum number of characters in all patterns of a schema, because one character class may become dozens of
 * transitions.
 */
const PATTERNS_LIMIT = 20_000;
/** Maximum number of terms in all patterns of a schema, before any derivatives. */
const TERMS_LIMIT = 50_000;

/** DFAs of the strings that many schemas have in common. There are few, and their states do not count characters. */
const common = new Map<string, CharacterState | undefined>();

function isCommon({ min, max, patterns, excluded }: StringAlternative): boolean {
  const isPlain = min <= 1 && max === Number.POSITIVE_INFINITY && excluded.length === 0;
  return (
    isPlain && patterns.length <= 1 && patterns.every(({ source, negated }) => !negated && isFormatPattern(source))
  );
}

/** Compiles the strings of one schema. Equal strings share one DFA. */
export class Strings {
  readonly #dfas = new Map<string, CharacterState | undefined>();
  readonly #counted = new Set<string>();
  #patternsLength = 0;
  #terms = 0;

  /** Returns the start state of the strings' DFA, or undefined if no string satisfies the constraints. */
  state(strings: StringAlternative): CharacterState | undefined {
    return this.union([strings]);
  }

  /** Returns the start state of the strings that satisfy one of the alternatives, except the excluded strings. */
  union(alternatives: readonly StringAlternative[], excluded: readonly string[] = []): CharacterState | undefined {
    const key = JSON.stringify([alternatives.map(stringKey), excluded]);
    if (alternatives.length === 1 && alternatives.every(isCommon) && excluded.length === 0) {
      return getOrCreate(common, key, () => this.#compile(alternatives, excluded));
    }
    if (!this.#dfas.has(key)) this.#dfas.set(key, this.#compile(alternatives, excluded));
    return this.#dfas.get(key);
  }

  /** Returns true if a text satisfies the constraints. */
  matches(text: string, strings: StringAlternative): boolean {
    if (!text.isWellFormed()) return false;
    let state = this.state(strings);
    for (const character of text) {
      state = state?.dfa.step(state, character.codePointAt(0) as number) ?? undefined;
    }
    return state?.term.nullable ?? false;
  }

  #compile(alternatives: readonly StringAlternative[], excluded: readonly string[]): CharacterState | undefined {
    const terms = new Terms();
    const without = terms.not(terms.words(excluded));
    const term = terms.and([terms.or(alternatives.map((each) => this.#term(each, terms))), without]);
    this.#terms += terms.size;
    const at = alternatives.flatMap(({ patterns }) => patterns.map((pattern) => pattern.at))[0];
    const tooLarge = () =>
      fieldError(at ?? 'schema', 'has too many states together with the other limits of the string');
    if (at !== undefined && this.#terms > TERMS_LIMIT) throw tooLarge();
    try {
      return new CharacterDfa(term, terms).start;
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      throw tooLarge();
    }
  }

  #term({ min, max, patterns, excluded }: StringAlternative, terms: Terms): Term {
    return terms.and([
      terms.repeat(terms.character, min, max),
      ...patterns.map((pattern) => this.#pattern(pattern, terms)),
      terms.not(terms.words(excluded)),
    ]);
  }

  #pattern({ source, negated, isFormat, at }: Pattern, terms: Terms): Term {
    if (!isFormat && !this.#counted.has(`${at} ${source}`)) {
      this.#counted.add(`${at} ${source}`);
      this.#patternsLength += source.length;
    }
    if (this.#patternsLength > PATTERNS_LIMIT) {
      throw fieldError(
        at,
        `is too long: all patterns together must have at most ${PATTERNS_LIMIT} characters, got ${this.#patternsLength}`,
      );
    }
    try {
      if (!isFormat) checkPatternLength(source);
      const term = patternTerm(source, terms);
      return negated ? terms.not(term) : term;
    } catch (error) {
      if (!(error instanceof RegexError)) throw error;
      throw fieldError(at, `must be a supported regular expression: ${error.message}`);
    }
  }
}

function stringKey({ min, max, patterns, excluded }: StringAlternative): unknown[] {
  return [
    min,
    max === Number.POSITIVE_INFINITY ? null : max,
    patterns.map(({ source, negated }) => [source, negated]),
    excluded,
  ];
}

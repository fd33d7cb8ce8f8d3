import type { AST } from '@eslint-community/regexpp';
import { complement, intersection, type Ranges } from './characters.ts';
import type { Expression } from './expression.ts';
import { CharacterDfa } from './strings/character-dfa.ts';
import { type Encoding, encodedState } from './strings/encoded.ts';
import { type Flags, rangesOf, word } from './strings/pattern-sets.ts';
import { parsePattern, RegexError } from './strings/pattern-syntax.ts';
import { type Term, Terms } from './strings/terms.ts';

/** Maximum number of UTF-16 code units in a pattern. */
const PATTERN_LIMIT = 2000;

/** @throws RegexError if a client's pattern is too long */
export function checkPatternLength({ length }: string): void {
  if (length > PATTERN_LIMIT) {
    throw new RegexError(`at most ${PATTERN_LIMIT} characters are supported, got ${length}`);
  }
}

/**
 * Terms for the text that may follow, by the kind of the preceding character: none (the beginning), a word character,
 * or any other character. Anchors and word boundaries depend on this kind.
 */
type Continuation = readonly [start: Term, word: Term, other: Term];

/**
 * Compiles a regular expression to a term that matches the whole texts in which the expression matches somewhere, like
 * `pattern` in JSON Schema, or with `whole`, from beginning to end. Compiles from the end to the beginning, so that an
 * assertion intersects the term of the text after it.
 *
 * @throws RegexError for syntax errors, lookbehind, back references, and assertions that depend on later repetitions
 */
export function patternTerm(pattern: string, terms: Terms, extent: 'search' | 'whole' = 'search'): Term {
  const { alternatives } = parsePattern(pattern);
  const compiler = new PatternCompiler(terms);
  return extent === 'whole' ? compiler.whole(alternatives) : compiler.search(alternatives);
}

const nonWord = complement(word);
const NO_FLAGS: Flags = { ignoreCase: false, dotAll: false };

class PatternCompiler {
  readonly #terms: Terms;
  readonly #word: Term;
  readonly #nonWord: Term;
  /** Number of repetitions unrolled in the whole pattern, because nested repetitions multiply. */
  #unrolled = 0;

  constructor(terms: Terms) {
    this.#terms = terms;
    this.#word = terms.set(word);
    this.#nonWord = terms.set(nonWord);
  }

  /** Matches the texts that the expression matches from beginning to end. */
  whole(alternatives: readonly AST.Alternative[]): Term {
    return this.#alternatives(alternatives, this.#constant(this.#terms.empty), NO_FLAGS)[0];
  }

  /** Matches the texts in which the expression matches somewhere. */
  search(alternatives: readonly AST.Alternative[]): Term {
    const terms = this.#terms;
    const [start, afterWord, afterOther] = this.#alternatives(alternatives, this.#constant(terms.anything), NO_FLAGS);
    if (start === afterWord && start === afterOther) return terms.cat(terms.anything, start);
    // A match begins at the beginning of the text, or after any text that ends with a character of the kind.
    const following = (kind: Term, rest: Term) => terms.cat(terms.anything, terms.cat(kind, rest));
    return terms.or([start, following(this.#word, afterWord), following(this.#nonWord, afterOther)]);
  }

  #alternatives(alternatives: readonly AST.Alternative[], after: Continuation, flags: Flags): Continuation {
    const options = alternatives.map(({ elements }) => this.#sequence(elements, after, flags));
    return byKind((kind) => this.#terms.or(options.map((option) => option[kind])));
  }

  #sequence(elements: readonly AST.Element[], after: Continuation, flags: Flags): Continuation {
    return elements.reduceRight((rest, element) => this.#element(element, rest, flags), after);
  }

  #element(element: AST.Element, after: Continuation, flags: Flags): Continuation {
    switch (element.type) {
      case 'Group':
      case 'CapturingGroup':
        return this.#alternatives(element.alternatives, after, changedFlags(element, flags));
      case 'Quantifier':
        return this.#quantified(element, after, flags);
      case 'Assertion':
        return this.#assertion(element, after, flags);
      default:
        return this.#followedBy(this.#characters(element, flags), after);
    }
  }

  /** Matches a term and then `after`. The term must contain no assertion that reaches beyond the term. */
  #followedBy(term: Term, after: Continuation): Continuation {
    const terms = this.#terms;
    const [, afterWord, afterOther] = after;
    if (afterWord === afterOther) {
      const rest = terms.cat(term, afterWord);
      if (!term.nullable) return [rest, rest, rest];
      const consumed = terms.cat(terms.and([term, terms.not(terms.empty)]), afterWord);
      return byKind((kind) => (after[kind] === afterWord ? rest : terms.or([after[kind], consumed])));
    }
    const endingWith = (kind: Ranges) =>
      term.kind === 'set'
        ? terms.set(intersection(term.ranges, kind))
        : terms.and([term, terms.cat(terms.anything, terms.set(kind))]);
    const consumed = terms.or([terms.cat(endingWith(word), afterWord), terms.cat(endingWith(nonWord), afterOther)]);
    return byKind((kind) => (term.nullable ? terms.or([after[kind], consumed]) : consumed));
  }

  #quantified({ element, min, max, raw }: AST.Quantifier, after: Continuation, flags: Flags): Continuation {
    if (max === 0) return after;
    const options = element.type === 'Assertion' ? undefined : this.#closed(element, flags);
    if (options) return this.#followedBy(this.#terms.repeat(options, min, max), after);
    // Assertions inside: unrolled, because the continuation of a repetition contains the next one.
    if (max > UNROLL_LIMIT) throw new RegexError(`\`${raw}\` is not supported: it repeats an assertion`);
    let rest = after;
    for (let i = max; i > 0; i--) {
      if (++this.#unrolled > UNROLL_TOTAL_LIMIT) {
        throw new RegexError(
          `\`${raw}\` is not supported: it repeats assertions more than ${UNROLL_TOTAL_LIMIT} times`,
        );
      }
      const once = this.#element(element as AST.Element, rest, flags);
      const skip = i > min ? after : undefined;
      rest = byKind((kind) => (skip ? this.#terms.or([once[kind], skip[kind]]) : once[kind]));
    }
    return rest;
  }

  /** Compiles an element to a term. Returns undefined if the term would depend on the surrounding text. */
  #closed(element: AST.QuantifiableElement, flags: Flags): Term | undefined {
    if (!hasAssertion(element)) {
      return this.#element(element as AST.Element, this.#constant(this.#terms.empty), flags)[0];
    }
    // Each lookahead must end before the element ends. Then the text after the element makes no difference.
    if (element.type !== 'Group' && element.type !== 'CapturingGroup') return undefined;
    const inner = changedFlags(element, flags);
    const options: Term[] = [];
    for (const { elements } of element.alternatives) {
      let rest: Term = this.#terms.empty;
      for (const each of elements.toReversed()) {
        const isLookahead = each.type === 'Assertion' && each.kind === 'lookahead';
        if (isLookahead) {
          const ahead = this.#lookahead(each, inner);
          if (!ahead || ahead.longest > rest.shortest) return undefined;
          const matches = this.#terms.cat(ahead, this.#terms.anything);
          rest = this.#terms.and([rest, each.negate ? this.#terms.not(matches) : matches]);
        } else {
          if (hasAssertion(each)) return undefined;
          rest = this.#terms.cat(this.#element(each, this.#constant(this.#terms.empty), inner)[0], rest);
        }
      }
      options.push(rest);
    }
    return this.#terms.or(options);
  }

  /** Returns the term of a lookahead without inner assertions. */
  #lookahead(element: AST.LookaheadAssertion, flags: Flags): Term | undefined {
    if (element.alternatives.some(({ elements }) => elements.some(hasAssertion))) return undefined;
    return this.#alternatives(element.alternatives, this.#constant(this.#terms.empty), flags)[0];
  }

  #assertion(element: AST.Assertion, after: Continuation, flags: Flags): Continuation {
    const terms = this.#terms;
    switch (element.kind) {
      case 'start':
        return [after[0], terms.nothing, terms.nothing];
      case 'end':
        return byKind((kind) => (after[kind].nullable ? terms.empty : terms.nothing));
      case 'word': {
        if (flags.ignoreCase) throw new RegexError(`\`${element.raw}\` is not supported where case is ignored`);
        const wordFollows = terms.cat(this.#word, terms.anything);
        return byKind((kind) => {
          const changes = (kind === 1) !== element.negate ? terms.not(wordFollows) : wordFollows;
          return terms.and([after[kind], changes]);
        });
      }
      case 'lookahead': {
        const ahead = this.#alternatives(element.alternatives, this.#constant(terms.anything), flags);
        return byKind((kind) => terms.and([after[kind], element.negate ? terms.not(ahead[kind]) : ahead[kind]]));
      }
      default:
        throw new RegexError(`\`${element.raw}\` is not supported`);
    }
  }

  #constant = (term: Term): Continuation => [term, term, term];

  #characters(
    element: Exclude<AST.Element, AST.Group | AST.CapturingGroup | AST.Quantifier | AST.Assertion>,
    flags: Flags,
  ) {
    switch (element.type) {
      case 'Character':
      case 'CharacterSet':
      case 'CharacterClass':
        return this.#terms.set(rangesOf(element, flags));
      default:
        throw new RegexError(`\`${element.raw}\` is not supported`);
    }
  }
}

/** Maximum number of repetitions of an element whose assertions reach beyond it. */
const UNROLL_LIMIT = 64;
/** Maximum number of such repetitions in a pattern. */
const UNROLL_TOTAL_LIMIT = 256;

const byKind = (term: (kind: 0 | 1 | 2) => Term): Continuation => [term(0), term(1), term(2)];

function hasAssertion(element: AST.Element | AST.QuantifiableElement): boolean {
  if (element.type === 'Assertion') return true;
  if (element.type === 'Quantifier') return hasAssertion(element.element);
  if (element.type !== 'Group' && element.type !== 'CapturingGroup') return false;
  return element.alternatives.some(({ elements }) => elements.some(hasAssertion));
}

function changedFlags(element: AST.Group | AST.CapturingGroup, flags: Flags): Flags {
  const modifiers = element.type === 'Group' ? element.modifiers : null;
  if (!modifiers) return flags;
  const { add, remove } = modifiers;
  if (add.multiline || remove?.multiline) throw new RegexError(`\`${modifiers.raw}\` is not supported`);
  return {
    ignoreCase: add.ignoreCase || (flags.ignoreCase && !remove?.ignoreCase),
    dotAll: add.dotAll || (flags.dotAll && !remove?.dotAll),
  };
}

/**
 * Compiles a regular expression to the grammar of the texts in which it matches somewhere, or with `whole`, from
 * beginning to end.
 *
 * @throws RegexError for syntax errors, unsupported parts, long patterns, and expressions without a match
 */
export function regexGrammar(pattern: string, encoding: Encoding, extent: 'search' | 'whole' = 'search'): Expression {
  checkPatternLength(pattern);
  const terms = new Terms();
  try {
    const { start } = new CharacterDfa(patternTerm(pattern, terms, extent), terms);
    if (start) return encodedState(start, encoding);
  } catch (error) {
    if (error instanceof RangeError) throw new RegexError('its parts have too many states together');
    throw error;
  }
  throw new RegexError('no text matches it');
}

import { type AST, RegExpParser } from '@eslint-community/regexpp';
import { anyCharacter, complement, normal, type Ranges } from './characters.ts';
import { choice, type Expression, nothing, repeat, sequence } from './expression.ts';
import { getOr } from './get-or.ts';

/** Characters of a pattern. */
const MOST_PATTERN = 2000;

/** A regular expression that cannot be had here; the message says what of it. */
export class RegexError extends Error {}

/**
 * A regular expression (ECMAScript's, Unicode mode) as a grammar of the texts that it matches somewhere in, as `pattern` in JSON Schema does.
 *
 * @param spell how one character of the ranges is written
 * @throws RegexError for syntax errors, and for lookaround, back references, word boundaries and sets of strings, which are no regular expressions
 */
export function regexGrammar(pattern: string, spell: (ranges: Ranges) => Expression): Expression {
  if (pattern.length > MOST_PATTERN)
    throw new RegexError(`at most ${MOST_PATTERN} characters are, got ${pattern.length}`);
  const spelt = new Map<string, Expression>();
  const spellOnce = (ranges: Ranges) => getOr(spelt, ranges.join(' '), () => spell(ranges));
  const any = repeat(spellOnce(anyCharacter));
  return choice(...parsed(pattern).alternatives.map((alternative) => anchored(alternative.elements, spellOnce, any)));
}

function parsed(pattern: string): AST.Pattern {
  try {
    return new RegExpParser({ ecmaVersion: 2025 }).parsePattern(pattern, 0, pattern.length, { unicode: true });
  } catch (error) {
    throw new RegexError(error instanceof Error ? error.message : String(error));
  }
}

/** One alternative of the whole: what `^` and `$` do not hold may stand in any text. */
function anchored(elements: readonly AST.Element[], spell: Spell, any: Expression): Expression {
  const isEdge = (element: AST.Element | undefined, kind: 'start' | 'end') =>
    element?.type === 'Assertion' && element.kind === kind;
  const from = isEdge(elements[0], 'start') ? 1 : 0;
  const to = elements.length - (isEdge(elements.at(-1), 'end') ? 1 : 0);
  const inner = elements.slice(from, to).map((element) => grammarOf(element, spell));
  return sequence(...(from > 0 ? [] : [any]), ...inner, ...(to < elements.length ? [] : [any]));
}

type Spell = (ranges: Ranges) => Expression;

function grammarOf(element: AST.Element | AST.QuantifiableElement, spell: Spell): Expression {
  switch (element.type) {
    case 'Character':
      return spell([[element.value, element.value]]);
    case 'CharacterSet':
    case 'CharacterClass':
      return spell(rangesOf(element));
    case 'Group':
    case 'CapturingGroup':
      return choice(
        ...element.alternatives.map(({ elements }) => sequence(...elements.map((each) => grammarOf(each, spell)))),
      );
    case 'Quantifier':
      return element.max === 0 ? nothing : repeat(grammarOf(element.element, spell), element.min, element.max);
    case 'Assertion':
      if (element.kind === 'start' || element.kind === 'end') {
        throw new RegexError(`\`${element.raw}\` is supported at the beginning and the end only`);
      }
      throw new RegexError(`\`${element.raw}\` is not supported`);
    default:
      throw new RegexError(`\`${element.raw}\` is not supported`);
  }
}

function rangesOf(element: AST.CharacterSet | AST.CharacterClass | AST.CharacterClassElement): Ranges {
  switch (element.type) {
    case 'Character':
      return [[element.value, element.value]];
    case 'CharacterClassRange':
      return [[element.min.value, element.max.value]];
    case 'CharacterClass': {
      const ranges = normal(element.elements.flatMap((each) => rangesOf(each as AST.CharacterClassElement)));
      return element.negate ? complement(ranges) : ranges;
    }
    case 'CharacterSet':
      if (element.kind === 'any') return complement(LINE_ENDS);
      if (element.kind === 'property') throw new RegexError(`\`${element.raw}\` is not supported`);
      return element.negate ? complement(SETS[element.kind]) : SETS[element.kind];
    default:
      throw new RegexError(`\`${element.raw}\` is not supported`);
  }
}

const LINE_ENDS: Ranges = [
  [0x0a, 0x0a],
  [0x0d, 0x0d],
  [0x2028, 0x2029],
];
const digit: Ranges = [[0x30, 0x39]];
const word: Ranges = [...digit, [0x41, 0x5a], [0x5f, 0x5f], [0x61, 0x7a]];
/** ECMAScript's white space and line ends. */
const blank: Ranges = [
  [0x09, 0x0d],
  [0x20, 0x20],
  [0xa0, 0xa0],
  [0x1680, 0x1680],
  [0x2000, 0x200a],
  [0x2028, 0x2029],
  [0x202f, 0x202f],
  [0x205f, 0x205f],
  [0x3000, 0x3000],
  [0xfeff, 0xfeff],
];
const SETS = { digit, word, space: blank } as const;

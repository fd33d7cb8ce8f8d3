import { type AST, RegExpParser } from '@eslint-community/regexpp';
import { anyCharacter, complement, normalize, type Ranges } from './characters.ts';
import { choice, type Expression, empty, repeat, sequence } from './expression.ts';
import { getOrCreate } from './get-or-create.ts';

/** Maximum number of UTF-16 code units in a pattern. */
const PATTERN_LIMIT = 2000;

/** Error for an invalid or unsupported regular expression. The message names the part. */
export class RegexError extends Error {}

/**
 * Compiles a regular expression (ECMAScript, Unicode mode) to a grammar. Like `pattern` in JSON Schema, the expression
 * matches anywhere in the text unless it is anchored by `^` and `$`.
 *
 * @param encode function that returns the expression for one character of a set, as plain UTF-8 or escaped as in a JSON
 *   string
 * @throws RegexError for syntax errors, lookaround, back references, word boundaries, properties and sets of strings
 */
export function regexGrammar(pattern: string, encode: (ranges: Ranges) => Expression): Expression {
  if (pattern.length > PATTERN_LIMIT) {
    throw new RegexError(`at most ${PATTERN_LIMIT} characters are supported, got ${pattern.length}`);
  }
  const encoded = new Map<string, Expression>();
  const encodeOnce = (ranges: Ranges) => getOrCreate(encoded, ranges.join(' '), () => encode(ranges));
  const any = repeat(encodeOnce(anyCharacter));
  return choice(...parsed(pattern).alternatives.map((alternative) => anchored(alternative.elements, encodeOnce, any)));
}

function parsed(pattern: string): AST.Pattern {
  try {
    return new RegExpParser({ ecmaVersion: 2025 }).parsePattern(pattern, 0, pattern.length, { unicode: true });
  } catch (error) {
    throw new RegexError(error instanceof Error ? error.message : String(error));
  }
}

/** Compiles one top-level alternative. Without `^` or `$`, any text may precede or follow the match. */
function anchored(elements: readonly AST.Element[], encode: Encode, any: Expression): Expression {
  const isEdge = (element: AST.Element | undefined, kind: 'start' | 'end') =>
    element?.type === 'Assertion' && element.kind === kind;
  const from = isEdge(elements[0], 'start') ? 1 : 0;
  const to = elements.length - (isEdge(elements.at(-1), 'end') ? 1 : 0);
  const inner = elements.slice(from, to).map((element) => grammarOf(element, encode));
  return sequence(...(from > 0 ? [] : [any]), ...inner, ...(to < elements.length ? [] : [any]));
}

type Encode = (ranges: Ranges) => Expression;

function grammarOf(element: AST.Element | AST.QuantifiableElement, encode: Encode): Expression {
  switch (element.type) {
    case 'Character':
      return encode([[element.value, element.value]]);
    case 'CharacterSet':
    case 'CharacterClass':
      return encode(rangesOf(element));
    case 'Group':
    case 'CapturingGroup':
      return choice(
        ...element.alternatives.map(({ elements }) => sequence(...elements.map((each) => grammarOf(each, encode)))),
      );
    case 'Quantifier':
      return element.max === 0 ? empty : repeat(grammarOf(element.element, encode), element.min, element.max);
    case 'Assertion':
      if (element.kind === 'start' || element.kind === 'end') {
        throw new RegexError(`\`${element.raw}\` is supported only at the beginning or end of an alternative`);
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
      const ranges = normalize(element.elements.flatMap((each) => rangesOf(each as AST.CharacterClassElement)));
      return element.negate ? complement(ranges) : ranges;
    }
    case 'CharacterSet':
      if (element.kind === 'any') return complement(LINE_TERMINATORS);
      if (element.kind === 'property') throw new RegexError(`\`${element.raw}\` is not supported`);
      return element.negate ? complement(SETS[element.kind]) : SETS[element.kind];
    default:
      throw new RegexError(`\`${element.raw}\` is not supported`);
  }
}

const LINE_TERMINATORS: Ranges = [
  [0x0a, 0x0a],
  [0x0d, 0x0d],
  [0x2028, 0x2029],
];
const digit: Ranges = [[0x30, 0x39]];
const word: Ranges = [...digit, [0x41, 0x5a], [0x5f, 0x5f], [0x61, 0x7a]];
/** White space and line terminators of ECMAScript. */
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

import type { AST } from '@eslint-community/regexpp';
import { anyCharacter, complement, normalize, type Ranges } from '../characters.ts';
import { RegexError } from './pattern-syntax.ts';
import { ignoringCase, propertyRanges } from './unicode.ts';

export interface Flags {
  readonly ignoreCase: boolean;
  readonly dotAll: boolean;
}

/** Returns the characters that an element of a pattern matches. @throws RegexError for sets of strings */
export function rangesOf(
  element: AST.CharacterSet | AST.CharacterClass | AST.CharacterClassElement,
  flags: Flags,
): Ranges {
  const folded = (ranges: Ranges) => (flags.ignoreCase ? ignoringCase(ranges) : ranges);
  switch (element.type) {
    case 'Character':
      return folded([[element.value, element.value]]);
    case 'CharacterClassRange':
      return folded([[element.min.value, element.max.value]]);
    case 'CharacterClass': {
      const ranges = normalize(element.elements.flatMap((each) => rangesOf(each as AST.CharacterClassElement, flags)));
      return element.negate ? complement(ranges) : ranges;
    }
    case 'CharacterSet':
      return characterSet(element, flags);
    default:
      throw new RegexError(`\`${element.raw}\` is not supported`);
  }
}

function characterSet(element: AST.CharacterSet, flags: Flags): Ranges {
  if (element.kind === 'any') return flags.dotAll ? anyCharacter : complement(LINE_TERMINATORS);
  if (element.kind !== 'property') {
    const ranges = flags.ignoreCase ? ignoringCase(SETS[element.kind]) : SETS[element.kind];
    return element.negate ? complement(ranges) : ranges;
  }
  // With `i`, ECMAScript also matches the other cases of a property's characters.
  if (flags.ignoreCase) throw new RegexError(`\`${element.raw}\` is not supported where case is ignored`);
  return propertyRanges(element.raw);
}

const LINE_TERMINATORS: Ranges = [
  [0x0a, 0x0a],
  [0x0d, 0x0d],
  [0x2028, 0x2029],
];
const digit: Ranges = [[0x30, 0x39]];
/** Characters that `\w` matches. */
export const word: Ranges = [...digit, [0x41, 0x5a], [0x5f, 0x5f], [0x61, 0x7a]];
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

import { normalize, type Ranges } from '../characters.ts';
import { getOrCreate } from '../get-or-create.ts';

/** Maximum number of cached properties. Unicode has a few hundred properties with up to hundreds of ranges each. */
const CAPACITY = 128;
const properties = new Map<string, Ranges>();

/** Returns the characters that a property escape such as `\p{L}` matches. */
export function propertyRanges(property: string): Ranges {
  if (properties.size >= CAPACITY) properties.clear();
  return getOrCreate(properties, property, () => {
    const runs = allCharacters().matchAll(new RegExp(`${property}+`, 'gu'));
    return normalize(Array.from(runs, ([run]): [number, number] => [run.codePointAt(0) as number, last(run)]));
  });
}

/** Returns the last code point of a text. */
function last(text: string): number {
  const pair = text.length > 1 ? (text.codePointAt(text.length - 2) as number) : 0;
  return pair > 0xffff ? pair : (text.codePointAt(text.length - 1) as number);
}

let everything: string | undefined;
/** Returns all characters in order. */
function allCharacters(): string {
  everything ??= Array.from({ length: 0x110000 >> 8 }, (_, block) =>
    block >= 0xd8 && block < 0xe0
      ? ''
      : String.fromCodePoint(...Array.from({ length: 256 }, (_, i) => block * 256 + i)),
  ).join('');
  return everything;
}

/** Returns the characters that match one of `ranges` without regard to case, as ECMAScript's `iu` flags define it. */
export function ignoringCase(ranges: Ranges): Ranges {
  if (folded.size >= 8 * CAPACITY) folded.clear();
  return getOrCreate(folded, ranges.join(' '), () => withOtherCases(ranges));
}

const folded = new Map<string, Ranges>();

function withOtherCases(ranges: Ranges): Ranges {
  const escapes = normalize(ranges).map(([from, to]) => `\\u{${from.toString(16)}}-\\u{${to.toString(16)}}`);
  const matching = new RegExp(`^[${escapes.join('')}]$`, 'iu');
  const others = casedCharacters().filter((character) => matching.test(character));
  return normalize([
    ...ranges,
    ...others.map((character): [number, number] => [
      character.codePointAt(0) as number,
      character.codePointAt(0) as number,
    ]),
  ]);
}

let cased: readonly string[] | undefined;
/** Characters with an upper-case or lower-case form. */
function casedCharacters(): readonly string[] {
  cased ??= [...allCharacters()].filter((character) => {
    return character.toLowerCase() !== character || character.toUpperCase() !== character;
  });
  return cased;
}

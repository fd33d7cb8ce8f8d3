/**
 * Classes of bytes in UTF-8 text. Patterns rarely distinguish the bytes of one class, so a set of classes, with one bit
 * for each class, can describe both the bytes of a token and the bytes that a grammar allows.
 */
const groups = [
  'abcdef',
  'ghijklmnopqrstuvwxyz',
  'ABCDEF',
  'GHIJKLMNOPQRSTUVWXYZ',
  '0123456789',
  ..."_-. /:,@+#'*=;$",
  '()',
  '[]',
  '{}',
  '<>',
  '!?',
  '%&',
  '|~^`',
];

/** Classes of ASCII characters, with their bytes. */
export const asciiClasses: readonly { readonly bit: number; readonly bytes: readonly number[] }[] = groups.map(
  (characters, index) => ({ bit: 1 << index, bytes: [...Buffer.from(characters)] }),
);
/** Class of the bytes of all characters that are not ASCII. */
export const NON_ASCII = 1 << groups.length;
/** Class of all other bytes: quotation mark, backslash, control characters, and bytes that are not valid UTF-8. */
export const OTHER = 1 << (groups.length + 1);

const bits: number[] = new Array(0x80).fill(OTHER);
for (const { bit, bytes } of asciiClasses) for (const byte of bytes) bits[byte] = bit;

/** Position in a text in UTF-8. */
export interface Utf8Position {
  /** Number of continuation bytes that must follow. */
  readonly missing: number;
  /** Range of the next continuation byte. */
  readonly low: number;
  readonly high: number;
}

/** Position between two characters. */
export const boundary: Utf8Position = { missing: 0, low: 0x80, high: 0xbf };

/** Lead bytes of UTF-8. Their ranges exclude overlong encodings and surrogates. */
const leadBytes: readonly { readonly from: number; readonly to: number; readonly after: Utf8Position }[] = [
  { from: 0xc2, to: 0xdf, after: { missing: 1, low: 0x80, high: 0xbf } },
  { from: 0xe0, to: 0xe0, after: { missing: 2, low: 0xa0, high: 0xbf } },
  { from: 0xe1, to: 0xec, after: { missing: 2, low: 0x80, high: 0xbf } },
  { from: 0xed, to: 0xed, after: { missing: 2, low: 0x80, high: 0x9f } },
  { from: 0xee, to: 0xef, after: { missing: 2, low: 0x80, high: 0xbf } },
  { from: 0xf0, to: 0xf0, after: { missing: 3, low: 0x90, high: 0xbf } },
  { from: 0xf1, to: 0xf3, after: { missing: 3, low: 0x80, high: 0xbf } },
  { from: 0xf4, to: 0xf4, after: { missing: 3, low: 0x80, high: 0x8f } },
];

/** Positions before the last continuation bytes of a character, whose values are not restricted, by number of bytes. */
const tails: readonly Utf8Position[] = [boundary, { ...boundary, missing: 1 }, { ...boundary, missing: 2 }];

type Step = readonly [bit: number, after: Utf8Position | undefined];

const invalid: Step = [OTHER, undefined];

function step(at: Utf8Position, byte: number): Step {
  if (at.missing > 0) return byte >= at.low && byte <= at.high ? [NON_ASCII, tails[at.missing - 1]] : invalid;
  if (byte < 0x80) return [bits[byte] as number, boundary];
  const lead = leadBytes.find(({ from, to }) => byte >= from && byte <= to);
  return lead ? [NON_ASCII, lead.after] : invalid;
}

/** [256] steps from each position. They are computed in advance, because every byte of a vocabulary needs one. */
const steps = new Map(
  [...tails, ...leadBytes.map(({ after }) => after)].map((at) => [
    at,
    Array.from({ length: 256 }, (_, b) => step(at, b)),
  ]),
);

/** Returns the class of a byte and the position after it. The position is undefined after invalid bytes. */
export function classify(at: Utf8Position | undefined, byte: number): Step {
  return at ? (steps.get(at)?.[byte] as Step) : invalid;
}

/** Returns the classes of the bytes of a text that begins between two characters. */
export function classesOf(text: Iterable<number>): number {
  let classes = 0;
  let at: Utf8Position | undefined = boundary;
  for (const byte of text) {
    const [bit, after] = classify(at, byte);
    classes |= bit;
    at = after;
  }
  return classes;
}

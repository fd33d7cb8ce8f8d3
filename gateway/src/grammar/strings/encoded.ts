import { allBytes, type DfaState } from '../expression.ts';
import { getOrCreate } from '../get-or-create.ts';
import type { CharacterState } from './character-dfa.ts';

/** Encoding of characters: UTF-8, or UTF-8 inside a JSON string, where some characters are escaped. */
export type Encoding = 'utf8' | 'json';

/** Returns the DFA over bytes of the texts that lead from the state to a match. States are shared. */
export function encodedState(state: CharacterState, encoding: Encoding): DfaState {
  return shared(state, encoding, () => ({
    kind: 'dfa',
    accepting: state.term.nullable,
    bytes: firstBytes(state, encoding),
    next: (byte) => firstByte(state, byte, encoding),
    truncated: (length) => encodedState(truncatedState(state, length), encoding),
    alike: (byte) => alike(state, byte, encoding),
    afterNonAscii: () => {
      const results = afterAnyNonAscii(state);
      const [only] = results;
      return results.size === 1 && only ? encodedState(only, encoding) : undefined;
    },
    forget: () => state.dfa.clear(),
  }));
}

const truncatedState = (state: CharacterState, length: number): CharacterState =>
  state.dfa.state(state.dfa.terms.truncate(state.term, length));

/** Returns the bytes with which a match may continue, in ascending order. */
function firstBytes(state: CharacterState, encoding: Encoding): number[] {
  const bytes = ascii.filter((byte) => {
    if (isPlain(byte, encoding)) return state.dfa.step(state, byte);
    return byte === 0x5c && afterBackslash(state);
  });
  const results = afterAnyNonAscii(state);
  return results.size > 1 || !results.has(null) ? [...bytes, ...leads] : bytes;
}

const ascii = allBytes.slice(0, 0x80);
const continuations = allBytes.slice(0x80, 0xc0);
const leads = allBytes.slice(0xc2, 0xf5);

/** Returns true if an ASCII character is written as itself. */
const isPlain = (byte: number, encoding: Encoding) =>
  encoding === 'utf8' || (byte >= 0x20 && byte !== 0x22 && byte !== 0x5c);

/** Returns the ASCII characters that the term of the state does not distinguish from `byte`. */
function alike({ dfa }: CharacterState, byte: number, encoding: Encoding): readonly number[] {
  if (byte >= 0x80 || !isPlain(byte, encoding)) return [];
  return dfa.alike(byte).filter((each) => isPlain(each, encoding));
}

/** Returns the different states after characters that are not ASCII. */
const afterAnyNonAscii = (state: CharacterState): Set<CharacterState | null> =>
  new Set([...state.dfa.stepRange(state, 0x80, 0xd7ff), ...state.dfa.stepRange(state, 0xe000, 0x10ffff)]);

/** Returns the DFA state with this key and creates it if absent, so that equal states are one object. */
function shared(state: CharacterState, key: string, create: () => DfaState): DfaState {
  return getOrCreate(state.inside, key, create) as DfaState;
}

function firstByte(state: CharacterState, byte: number, encoding: Encoding): DfaState | undefined {
  if (byte < 0x80) {
    if (isPlain(byte, encoding)) return afterCharacter(state, byte, encoding);
    return byte === 0x5c ? afterBackslash(state) : undefined;
  }
  for (const [low, high, more] of LEAD_BYTES) {
    if (byte >= low && byte <= high)
      return insideCharacter(state, byte & (0x3f >> more), more, LEAST[more] as number, encoding);
  }
  return undefined;
}

/** Lead bytes of UTF-8, with the number of continuation bytes that follow. */
const LEAD_BYTES = [
  [0xc2, 0xdf, 1],
  [0xe0, 0xef, 2],
  [0xf0, 0xf4, 3],
] as const;
/** Least character for each number of continuation bytes. Longer encodings of lesser characters are not valid. */
const LEAST = [0, 0x80, 0x800, 0x10000];

function afterCharacter(state: CharacterState, character: number, encoding: Encoding): DfaState | undefined {
  const next = state.dfa.step(state, character);
  return next ? encodedState(next, encoding) : undefined;
}

/** @param bits bits of the character read so far @param more number of continuation bytes that follow */
function insideCharacter(
  state: CharacterState,
  bits: number,
  more: number,
  least: number,
  encoding: Encoding,
): DfaState | undefined {
  if (more === 0) return afterCharacter(state, bits, encoding);
  const first = bits << (6 * more);
  const last = Math.min(first + (1 << (6 * more)) - 1, 0x10ffff);
  if (last < Math.max(first, least)) return undefined;
  const results = state.dfa.stepRange(state, Math.max(first, least), last);
  const [only] = results;
  if (results.size === 1 && !only) return undefined;
  const isWhole = first >= least && last === first + (1 << (6 * more)) - 1;
  if (results.size === 1 && only && isWhole) return continuationBytes(only, more, encoding);
  return shared(state, `${encoding} ${bits} ${more} ${least}`, () => ({
    kind: 'dfa',
    accepting: false,
    bytes: continuations,
    next: (byte) =>
      byte >= 0x80 && byte <= 0xbf
        ? insideCharacter(state, (bits << 6) | (byte & 0x3f), more - 1, least, encoding)
        : undefined,
    truncated: (length) => insideCharacter(truncatedState(state, length), bits, more, least, encoding) as DfaState,
  }));
}

/** Matches any `more` continuation bytes and then continues in `state`. */
function continuationBytes(state: CharacterState, more: number, encoding: Encoding): DfaState {
  if (more === 0) return encodedState(state, encoding);
  return shared(state, `${encoding} any ${more}`, () => ({
    kind: 'dfa',
    accepting: false,
    bytes: continuations,
    next: (byte) => (byte >= 0x80 && byte <= 0xbf ? continuationBytes(state, more - 1, encoding) : undefined),
    truncated: (length) => continuationBytes(truncatedState(state, length), more, encoding),
  }));
}

const ESCAPES: Readonly<Record<string, number>> = {
  '"': 0x22,
  '\\': 0x5c,
  '/': 0x2f,
  b: 0x08,
  f: 0x0c,
  n: 0x0a,
  r: 0x0d,
  t: 0x09,
};

const escapeBytes = [...Buffer.from('"/\\bfnrtu')];
const hexBytes = [...Buffer.from('0123456789ABCDEFabcdef')];

function afterBackslash(state: CharacterState): DfaState | undefined {
  if (state.dfa.stepRange(state, 0, 0x10ffff).size === 1 && !state.dfa.step(state, 0)) return undefined;
  return shared(state, 'escape', () => ({
    kind: 'dfa',
    accepting: false,
    bytes: escapeBytes,
    next: (byte) => {
      const name = String.fromCharCode(byte);
      if (name === 'u') return hexDigits(state, 0, 4, undefined);
      const character = ESCAPES[name];
      return character === undefined ? undefined : afterCharacter(state, character, 'json');
    },
    truncated: (length) => afterBackslash(truncatedState(state, length)) as DfaState,
  }));
}

/**
 * Matches the digits of a `\u` escape.
 *
 * @param value value of the digits read so far
 * @param more number of digits that follow
 * @param high first half of a surrogate pair, if the escape is the second half
 */
function hexDigits(state: CharacterState, value: number, more: number, high: number | undefined): DfaState | undefined {
  if (!hasCharacter(state, value << (4 * more), ((value + 1) << (4 * more)) - 1, high)) return undefined;
  if (more === 0) {
    if (high !== undefined) return afterCharacter(state, pair(high, value), 'json');
    return isHigh(value) ? literalEscape(state, value, '\\u') : afterCharacter(state, value, 'json');
  }
  return shared(state, `hex ${value} ${more} ${high ?? ''}`, () => ({
    kind: 'dfa',
    accepting: false,
    bytes: hexBytes,
    next: (byte) => {
      const digit = Number.parseInt(String.fromCharCode(byte), 16);
      return Number.isNaN(digit) ? undefined : hexDigits(state, value * 16 + digit, more - 1, high);
    },
    truncated: (length) => hexDigits(truncatedState(state, length), value, more, high) as DfaState,
  }));
}

/** Matches the beginning of the escape that completes a surrogate pair. */
function literalEscape(state: CharacterState, high: number, rest: string): DfaState {
  if (rest === '') return hexDigits(state, 0, 4, high) as DfaState;
  return shared(state, `pair ${high} ${rest}`, () => ({
    kind: 'dfa',
    accepting: false,
    bytes: [rest.charCodeAt(0)],
    next: (byte) => (byte === rest.charCodeAt(0) ? literalEscape(state, high, rest.slice(1)) : undefined),
    truncated: (length) => literalEscape(truncatedState(state, length), high, rest),
  }));
}

const isHigh = (unit: number): boolean => unit >= 0xd800 && unit <= 0xdbff;
const pair = (high: number, low: number): number => 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);

/** Returns true if a match continues with a character whose next UTF-16 code unit is in [from, to]. */
function hasCharacter(state: CharacterState, from: number, to: number, high: number | undefined): boolean {
  const continues = (first: number, last: number) => {
    if (first > last) return false;
    const results = state.dfa.stepRange(state, first, last);
    return results.size > 1 || !results.has(null);
  };
  const clipped = (low: number, high: number): [number, number] => [Math.max(from, low), Math.min(to, high)];
  if (high !== undefined) {
    const [first, last] = clipped(0xdc00, 0xdfff);
    return first <= last && continues(pair(high, first), pair(high, last));
  }
  const [first, last] = clipped(0xd800, 0xdbff);
  return continues(from, to) || (first <= last && continues(pair(first, 0xdc00), pair(last, 0xdfff)));
}

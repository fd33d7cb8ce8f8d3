import { mayLoseOrder, prefixNames, withoutPrefixes } from './ordered-object.ts';

/**
 * Integer that a double cannot represent, or number beyond the range of doubles, in the client's own digits.
 * `JSON.stringify` writes these digits, so that constants of a schema and arguments of a call stay exact.
 */
export interface LongNumber {
  readonly rawJSON: string;
}

/** Part of JSON that TypeScript does not declare yet (https://github.com/tc39/proposal-json-parse-with-source). */
const { rawJSON, isRawJSON } = JSON as unknown as {
  rawJSON(text: string): LongNumber;
  isRawJSON(value: unknown): value is LongNumber;
};

/** Returns true if the value is a LongNumber. */
export const isLongNumber: (value: unknown) => value is LongNumber = isRawJSON;

/** Pattern of text that may contain a long number: 16 digits in a row, or an exponent of three digits. */
const MAY_BE_LONG = /\d{16}|\d[eE]\+?\d{3}/;
const INTEGER = /^-?\d+$/;

/**
 * Parses JSON like `JSON.parse`, but keeps long numbers as LongNumber, and the names of each object in the order of the
 * text, even if they look like array indices. Fractions are rounded to doubles.
 */
export function parseExactly(text: string): unknown {
  if (mayLoseOrder(text)) {
    JSON.parse(text); // Throws errors about the client's own text, which has no prefixes.
    return JSON.parse(prefixNames(text), keepOrder);
  }
  // A reviver is called for every value, so it is used only if it may be needed.
  return MAY_BE_LONG.test(text) ? JSON.parse(text, keepLongNumber) : JSON.parse(text);
}

function keepOrder(key: string, value: unknown, context?: { source?: string }): unknown {
  const isObject = typeof value === 'object' && value !== null && !Array.isArray(value);
  return isObject ? withoutPrefixes(value) : keepLongNumber(key, value, context);
}

function keepLongNumber(_key: string, value: unknown, context?: { source?: string }): unknown {
  if (typeof value !== 'number') return value;
  const source = context?.source ?? '';
  const isExact = Number.isFinite(value) && (!INTEGER.test(source) || BigInt(source) === BigInt(value));
  return isExact ? value : rawJSON(source);
}

import { isLongNumber } from '@ptp/protocol/long-number';
import { decimalKey, decimalOf } from './decimal.ts';

/** Type of a JSON value. Integers are numbers. */
export type ValueType = 'null' | 'boolean' | 'number' | 'string' | 'array' | 'object';

export function valueType(value: unknown): ValueType {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'array';
  if (isLongNumber(value)) return 'number';
  return typeof value as ValueType;
}

/** Returns the entries of an object in the order of the client's text. */
export const entriesOf = (object: object): [name: string, value: unknown][] => Object.entries(object);

/** Returns the value of an own member, or undefined if there is no such member. */
export const memberOf = (object: object, name: string): unknown =>
  Object.hasOwn(object, name) ? (object as Record<string, unknown>)[name] : undefined;

/** Returns a key that is equal for equal values. The order of members and the spelling of numbers do not matter. */
export function valueKey(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(valueKey).join()}]`;
  if (isLongNumber(value) || typeof value === 'number') {
    const decimal = decimalOf(value);
    return decimal ? decimalKey(decimal) : scalarText(value);
  }
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  const entries = entriesOf(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${entries.map(([name, each]) => `${JSON.stringify(name)}:${valueKey(each)}`).join()}}`;
}

/**
 * Returns the JSON text of a value that is neither an array nor an object. Integers beyond 2^53 keep all digits, which
 * JSON.stringify rounds.
 */
export function scalarText(value: unknown): string {
  if (typeof value !== 'number' || !Number.isInteger(value) || Number.isSafeInteger(value))
    return JSON.stringify(value);
  return Math.abs(value) < 1e21 ? BigInt(value).toString() : JSON.stringify(value);
}

import { PtpError } from '@ptp/protocol/errors';
import { isLongNumber, parseExactly } from '@ptp/protocol/long-number';
import { invalidField } from '@ptp/protocol/validation';

/** Maximum nesting of arrays and objects in a client's JSON, because much of the code that reads JSON is recursive. */
export const NESTING_LIMIT = 200;

/**
 * Parses a request body whose size and nesting `checkJsonSize` has checked. Numbers that a double cannot
 * represent become a LongNumber.
 *
 * @throws PtpError `invalid_argument` if the bytes are not UTF-8 or not JSON
 */
export function parseJson(bytes: Uint8Array): unknown {
  const text = decode(bytes);
  try {
    return parseExactly(text);
  } catch (cause) {
    throw new PtpError('invalid_argument', 'the request body is not valid JSON', { cause });
  }
}

/**
 * Parses the JSON text in a field.
 *
 * @param content required content of the text, for error messages: "an object"
 * @throws PtpError `invalid_argument` if the text is not JSON or nested too deep
 */
export function parseJsonField(text: string, field: string, content: string): unknown {
  const value = parseJsonText(text, field);
  if (value === undefined) throw invalidField(field, `the JSON text of ${content}`, text);
  return value;
}

/**
 * Parses a field whose text may be JSON. Returns undefined if it is not.
 *
 * @throws PtpError `invalid_argument` if it is nested too deep
 */
export function parseJsonText(text: string, field: string): unknown {
  let value: unknown;
  try {
    value = parseExactly(text);
  } catch {
    return undefined;
  }
  if (isNestedTooDeep(value)) throw invalidField(field, `nested at most ${NESTING_LIMIT} levels deep`, text);
  return value;
}

function decode(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new PtpError('invalid_argument', 'the request body is not valid UTF-8', { cause });
  }
}

/** @param levels number of levels that are still allowed, which limits the recursion */
function isNestedTooDeep(value: unknown, levels = NESTING_LIMIT): boolean {
  if (typeof value !== 'object' || value === null || isLongNumber(value)) return false;
  return levels === 0 || Object.values(value).some((inner) => isNestedTooDeep(inner, levels - 1));
}

import { PtpError } from '@ptp/protocol/errors';
import { invalidField } from '@ptp/protocol/validation';

/** Maximum nesting of arrays and objects in a client's JSON, because much of the code that reads it is recursive. */
const NESTING_LIMIT = 200;

/**
 * Parses a request body. A `seed` beyond 2^53 becomes a bigint, because a number would change it.
 *
 * @throws PtpError `invalid_argument` if the bytes are not UTF-8, not JSON, or nested too deep
 */
export function parseJson(bytes: Uint8Array): unknown {
  const value = parseBody(decode(bytes));
  if (!isNestedTooDeep(value)) return value;
  throw new PtpError('invalid_argument', `the request body must be nested at most ${NESTING_LIMIT} levels deep`);
}

/**
 * Parses the JSON text in a field.
 *
 * @param content required content of the text, for error messages: "an object"
 * @throws PtpError `invalid_argument` if the text is not JSON or nested too deep
 */
export function parseJsonField(text: string, field: string, content: string): unknown {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw invalidField(field, `the JSON text of ${content}`, text);
  }
  if (isNestedTooDeep(value)) throw invalidField(field, `nested at most ${NESTING_LIMIT} levels deep`, text);
  return value;
}

function parseBody(text: string): unknown {
  try {
    // A reviver is called for every value of the body, so it is used only for a long seed.
    return /"seed"\s*:\s*-?\d{16}/.test(text) ? JSON.parse(text, keepLongSeeds) : JSON.parse(text);
  } catch (cause) {
    throw new PtpError('invalid_argument', 'the request body is not valid JSON', { cause });
  }
}

function decode(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new PtpError('invalid_argument', 'the request body is not valid UTF-8', { cause });
  }
}

/**
 * Keeps a long seed exact. TypeScript does not declare `context.source` yet
 * (https://github.com/tc39/proposal-json-parse-with-source).
 */
function keepLongSeeds(this: unknown, key: string, value: unknown, context?: { source?: string }): unknown {
  const source = context?.source ?? '';
  return key === 'seed' && typeof value === 'number' && /^-?\d{16,}$/.test(source) ? BigInt(source) : value;
}

/** @param levels number of levels that are still allowed, which limits the recursion */
function isNestedTooDeep(value: unknown, levels = NESTING_LIMIT): boolean {
  if (typeof value !== 'object' || value === null) return false;
  return levels === 0 || Object.values(value).some((inner) => isNestedTooDeep(inner, levels - 1));
}

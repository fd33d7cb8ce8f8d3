import { PtpError } from '@ptp/protocol/errors';
import { isNestedTooDeep, MOST_NESTING } from './nesting.ts';

/**
 * A request body as JSON. A `seed` beyond 2^53 becomes a bigint, as a number would change it.
 *
 * @throws PtpError `invalid_argument` if the bytes are not UTF-8, or the text is not JSON or nested too deep
 */
export function parseJson(bytes: Uint8Array): unknown {
  const value = parsed(decode(bytes));
  if (!isNestedTooDeep(value)) return value;
  throw new PtpError('invalid_argument', `the request body must be nested at most ${MOST_NESTING} deep`);
}

function parsed(text: string): unknown {
  try {
    // The reviver sees every value of the body, so it is kept for the rare bodies that need it.
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

/** `context.source`: https://github.com/tc39/proposal-json-parse-with-source, which TypeScript does not know yet. */
function keepLongSeeds(this: unknown, key: string, value: unknown, context?: { source?: string }): unknown {
  const source = context?.source ?? '';
  return key === 'seed' && typeof value === 'number' && /^-?\d{16,}$/.test(source) ? BigInt(source) : value;
}

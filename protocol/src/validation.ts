import type { z } from 'zod';
import { type ErrorCode, PtpError } from './errors.ts';
import { isLongNumber } from './long-number.ts';

/** Creates an error whose message is the field's name followed by `problem`. */
export function fieldError(field: string, problem: string, code: ErrorCode = 'invalid_argument'): PtpError {
  return new PtpError(code, `\`${field}\` ${problem}`, { field });
}

/** Creates the error for an invalid value in a request or message, for example "`top_p` must be in (0, 1], got 3". */
export function invalidField(field: string, requirement: string, value: unknown, code?: ErrorCode): PtpError {
  return fieldError(field, `must be ${requirement}, got ${describe(value)}`, code);
}

/** Checks that a field is valid. @throws PtpError `code`, naming field, limit and value, unless `valid` */
export function requireField(
  valid: boolean,
  field: string,
  requirement: string,
  value: unknown,
  code?: ErrorCode,
): asserts valid {
  if (!valid) throw invalidField(field, requirement, value, code);
}

/** Checks token ids. @throws PtpError `invalid_argument` naming the first id outside the vocabulary */
export function requireTokens(field: string, tokens: readonly number[], vocabulary: number): void {
  const bad = tokens.findIndex((token) => token >= vocabulary);
  if (bad < 0) return;
  const { message } = invalidField(`${field}[${bad}]`, `in [0, ${vocabulary - 1}]`, tokens[bad]);
  throw new PtpError('invalid_argument', message, { field });
}

/**
 * Parses a value with a zod schema whose error messages complete the phrase "must be".
 *
 * @param parent field that holds the value; empty for the request body itself
 * @throws PtpError `invalid_argument` naming the first field that does not fit, its limit and its value
 */
export function parseFields<T extends z.ZodType>(schema: T, value: unknown, parent = ''): z.infer<T> {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  let issue = result.error.issues[0] as z.core.$ZodIssue;
  let path = issue.path;
  // For a union, report the alternative that matched furthest, because the client most likely meant it.
  while (issue.code === 'invalid_union' && issue.errors.length > 0) {
    const firsts = issue.errors.flatMap((issues) => issues.slice(0, 1));
    issue = firsts.reduce((best, next) => (next.path.length >= best.path.length ? next : best));
    path = [...path, ...issue.path];
  }
  const actual = path.reduce((at, key) => (isObject(at) ? at[key] : at), value);
  throw invalidField(fieldName(parent, path), issue.message, actual);
}

function fieldName(parent: string, path: readonly PropertyKey[]): string {
  const name = path.reduce<string>((at, key) => {
    return typeof key === 'number' ? `${at}[${key}]` : `${at}${at && '.'}${String(key)}`;
  }, parent);
  return name || 'body';
}

/** Describes a value briefly; never returns a whole prompt. */
function describe(value: unknown): string {
  if (value === undefined) return 'nothing';
  if (Array.isArray(value)) return `an array of ${value.length}`;
  if (isObject(value) && !isLongNumber(value)) return 'an object';
  const text = typeof value === 'string' || isObject(value) ? JSON.stringify(value) : String(value);
  return text.length > 80 ? `${text.slice(0, 80)}...` : text;
}

function isObject(value: unknown): value is Record<PropertyKey, unknown> {
  return typeof value === 'object' && value !== null;
}

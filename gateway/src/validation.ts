import { PtpError } from '@ptp/protocol/errors';
import { z } from 'zod';

/** Parts of request schemas. An error is what stands after "must be" in the message that the client gets. */

export const integer = (min: number, max: number, error: string) =>
  z.int({ error }).min(min, { error }).max(max, { error });
export const number = z.number({ error: 'a number' });
export const boolean = z.boolean({ error: 'true or false' });
export const object = <Shape extends z.core.$ZodLooseShape>(shape: Shape) => z.object(shape, { error: 'an object' });
export const text = z.string({ error: 'a string' }).refine((value) => value.isWellFormed(), 'free of lone surrogates');
export const positive = integer(1, Number.MAX_SAFE_INTEGER, 'an integer >= 1').nullish();

/** @throws PtpError `invalid_argument` naming the first field that the schema refuses, its limit and the given value */
export function check<T extends z.ZodType>(schema: T, body: unknown): z.infer<T> {
  const result = schema.safeParse(body);
  if (result.success) return result.data;
  let issue = result.error.issues[0] as z.core.$ZodIssue;
  let path = issue.path;
  // Of a union's alternatives, the one that got furthest is what the client meant.
  while (issue.code === 'invalid_union' && issue.errors.length > 0) {
    const firsts = issue.errors.flatMap((issues) => issues.slice(0, 1));
    const inner = firsts.reduce((best, next) => (next.path.length >= best.path.length ? next : best));
    path = [...path, ...inner.path];
    issue = inner;
  }
  const value = path.reduce((at, key) => (isObject(at) ? at[key] : at), body);
  return refuse(fieldName(path), issue.message, value);
}

function isObject(value: unknown): value is Record<PropertyKey, unknown> {
  return typeof value === 'object' && value !== null;
}

function fieldName(path: readonly PropertyKey[]): string {
  if (path.length === 0) return 'body';
  return path
    .map((key, depth) => (typeof key === 'number' ? `[${key}]` : `${depth ? '.' : ''}${String(key)}`))
    .join('');
}

/** @throws PtpError `invalid_argument` */
export function refuse(field: string, limit: string, value: unknown): never {
  throw new PtpError('invalid_argument', `\`${field}\` must be ${limit}, got ${shown(value)}`, { field });
}

/** A given value as a message shows it: short, and never a whole prompt. */
function shown(value: unknown): string {
  if (value === undefined) return 'nothing';
  if (Array.isArray(value)) return `an array of ${value.length}`;
  if (isObject(value)) return 'an object';
  const text = typeof value === 'string' ? JSON.stringify(value) : String(value);
  return text.length > 80 ? `${text.slice(0, 80)}...` : text;
}

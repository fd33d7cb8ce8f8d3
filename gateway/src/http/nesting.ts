import { refuse } from '../validation.ts';

/** Levels of arrays and objects that a client's JSON may have: much of what reads it does so by recursion. */
export const MOST_NESTING = 200;

/** Whether arrays and objects are nested deeper than that. */
export function isNestedTooDeep(value: unknown): boolean {
  let level = [value].filter(isContainer);
  for (let depth = 1; level.length > 0; depth++) {
    if (depth > MOST_NESTING) return true;
    const next: object[] = [];
    for (const container of level) {
      for (const inner of Object.values(container)) if (isContainer(inner)) next.push(inner);
    }
    level = next;
  }
  return false;
}

/**
 * A field's text as JSON.
 *
 * @param what it has to be the text of, for errors
 * @throws PtpError `invalid_argument` if it is no JSON, or nested too deep
 */
export function parsedText(text: string, field: string, what: string): unknown {
  const value = parsed(text, field, what);
  return isNestedTooDeep(value) ? refuse(field, `nested at most ${MOST_NESTING} deep`, text) : value;
}

function parsed(text: string, field: string, what: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return refuse(field, `the JSON text of ${what}`, text);
  }
}

function isContainer(value: unknown): value is object {
  return typeof value === 'object' && value !== null;
}

import { type AST, RegExpParser } from '@eslint-community/regexpp';

/** Error for an invalid or unsupported regular expression. The message quotes the part in question. */
export class RegexError extends Error {}

/**
 * Parses a regular expression (ECMAScript, Unicode mode). Also accepts unambiguous syntax of other dialects that
 * Unicode mode rejects: escaped punctuation, literal braces and brackets, a hyphen next to a class, Python's `\A`,
 * `\Z`, `(?P<name>` and a leading `(?i)`.
 *
 * @throws RegexError for syntax errors
 */
export function parsePattern(pattern: string): AST.Pattern {
  const source = unicodeSyntax(pattern);
  try {
    return new RegExpParser({ ecmaVersion: 2025 }).parsePattern(source, 0, source.length, { unicode: true });
  } catch (error) {
    throw new RegexError(error instanceof Error ? error.message : String(error));
  }
}

const SYNTAX = /[\^$\\.*+?()[\]{}|/]/;
const BRACED_ESCAPE = /^\\(?:[pP]\{[^}]*\}|u\{[^}]*\})/;
const QUANTIFIER = /^\{\d+(,\d*)?\}/;

/** Rewrites a pattern in the syntax of Unicode mode. */
function unicodeSyntax(pattern: string): string {
  const flags = /^\(\?([is]+)\)/.exec(pattern);
  const body = flags ? pattern.slice(flags[0].length) : pattern;
  let out = '';
  let at = 0;
  while (at < body.length) {
    const [text, length] = inClass(body, at) ?? outside(body, at);
    out += text;
    at += length;
  }
  return flags ? `(?${flags[1]}:${out})` : out;
}

/** Returns the rewritten element that begins at `at` outside a class, and its length. */
function outside(body: string, at: number): [text: string, length: number] {
  const rest = body.slice(at, at + 80);
  const c = rest[0] as string;
  if (c === '\\') {
    const next = rest[1] ?? '';
    if (next === 'A') return ['^', 2];
    if (next === 'Z' || next === 'z') return ['$', 2];
    const braced = BRACED_ESCAPE.exec(rest)?.[0];
    return braced ? [braced, braced.length] : [escaped(next, SYNTAX), 2];
  }
  if (rest.startsWith('(?P<')) return ['(?<', 4];
  if (c === ']' || c === '}') return [`\\${c}`, 1];
  if (c !== '{') return [c, 1];
  const quantifier = QUANTIFIER.exec(rest)?.[0];
  return quantifier && at > 0 ? [quantifier, quantifier.length] : ['\\{', 1];
}

/** Returns the rewritten class that begins at `at`, and its length. Returns undefined if there is no class. */
function inClass(body: string, start: number): [text: string, length: number] | undefined {
  if (body[start] !== '[') return undefined;
  let at = start + 1;
  let out = '[';
  if (body[at] === '^') {
    out += '^';
    at++;
  }
  let afterSet = false;
  while (at < body.length && body[at] !== ']') {
    const c = body[at] as string;
    if (c === '\\') {
      const next = body[at + 1] ?? '';
      const braced = BRACED_ESCAPE.exec(body.slice(at, at + 80))?.[0];
      const isSet = /[dDwWsSpP]/.test(next);
      out += braced ?? escaped(next, /[\^$\\.*+?()[\]{}|/-]/);
      at += braced?.length ?? 2;
      // In `[\w-.]`, the hyphen cannot be a range.
      if (isSet && body[at] === '-' && body[at + 1] !== ']') {
        out += '\\-';
        at++;
      }
      afterSet = isSet;
      continue;
    }
    const beforeSet = c === '-' && /^\\[dDwWsSpP]/.test(body.slice(at + 1, at + 3)) && !afterSet;
    out += beforeSet ? '\\-' : c;
    afterSet = false;
    at++;
  }
  return [`${out}${body[at] ?? ''}`, at + 1 - start];
}

/** Returns the escape of a character, or only the character if Unicode mode rejects the backslash here. */
function escaped(next: string, syntax: RegExp): string {
  return /[^A-Za-z0-9]/.test(next) && !syntax.test(next) ? next : `\\${next}`;
}

import { inJsonString } from './characters.ts';
import { type Expression, literal, sequence } from './expression.ts';
import { getOrCreate } from './get-or-create.ts';
import { regexGrammar } from './regex.ts';

const DAY_OF_YEAR = '((0[13578]|1[02])-(0[1-9]|[12]\\d|3[01])|(0[469]|11)-(0[1-9]|[12]\\d|30)|02-(0[1-9]|1\\d|2[0-8]))';
const DATE = `\\d{4}-${DAY_OF_YEAR}`;
const TIME = '([01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(\\.\\d{1,6})?(Z|[+-](0\\d|1[0-4]):[0-5]\\d)';
const LABEL = '[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?';
const BYTE = '(25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)';

/** String formats (JSON Schema 2020-12 validation, section 7.3). Each expression matches a subset of its format. */
const FORMATS = {
  date: `^${DATE}$`,
  time: `^${TIME}$`,
  'date-time': `^${DATE}T${TIME}$`,
  uuid: '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$',
  ipv4: `^${BYTE}(\\.${BYTE}){3}$`,
  hostname: `^${LABEL}(\\.${LABEL}){0,4}$`,
  email: `^[A-Za-z0-9_+-]{1,32}(\\.[A-Za-z0-9_+-]{1,32}){0,3}@${LABEL}(\\.${LABEL}){1,3}$`,
};

const grammars = new Map<string, Expression>();

/**
 * Matches a JSON string with a format. Returns undefined for other formats, which the standard treats as annotations.
 */
export function formattedString(name: string): Expression | undefined {
  if (!Object.hasOwn(FORMATS, name)) return undefined;
  return getOrCreate(grammars, name, () => matchingString(FORMATS[name as keyof typeof FORMATS]));
}

/** Matches a JSON string whose content matches a regular expression. @throws RegexError */
export function matchingString(pattern: string): Expression {
  return sequence(literal('"'), regexGrammar(pattern, inJsonString), literal('"'));
}

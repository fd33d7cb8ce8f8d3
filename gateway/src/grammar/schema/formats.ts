import { IPV4, IPV6 } from './ip-addresses.ts';
import { uriFormats } from './uri-formats.ts';

const LEAP_YEAR = '(\\d\\d(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)';
const DATE = `(\\d{4}-((0[13578]|1[02])-(0[1-9]|[12]\\d|3[01])|(0[469]|11)-(0[1-9]|[12]\\d|30)|02-(0[1-9]|1\\d|2[0-8]))|${LEAP_YEAR}-02-29)`;
const TIME = '([01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(\\.\\d+)?([Zz]|[+-]([01]\\d|2[0-3]):[0-5]\\d)';
const LABEL = '[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?';
const HOSTNAME = `(?=.{1,253}$)${LABEL}(\\.${LABEL})*`;
const DOMAIN = `${LABEL}(\\.${LABEL})+`;
const ATOM = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+";
const DURATION_TIME = 'T(\\d+H(\\d+M(\\d+S)?)?|\\d+M(\\d+S)?|\\d+S)';
const DURATION_DATE = '(\\d+Y(\\d+M(\\d+D)?)?|\\d+M(\\d+D)?|\\d+D)';

/**
 * String formats (JSON Schema 2020-12 validation, section 7.3) that are enforced. The expression of `email` leaves out
 * quoted local parts and address literals, and the expressions of times leave out leap seconds. `hostname` does not decode
 * labels in Punycode. Other formats are annotations, as in the standard.
 */
const FORMATS: ReadonlyMap<string, string> = new Map(
  Object.entries({
    date: `^${DATE}$`,
    time: `^${TIME}$`,
    'date-time': `^${DATE}[Tt]${TIME}$`,
    duration: `^P(${DURATION_DATE}(${DURATION_TIME})?|${DURATION_TIME}|\\d+W)$`,
    uuid: '^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$',
    ipv4: `^${IPV4}$`,
    ipv6: `^(${IPV6})$`,
    hostname: `^${HOSTNAME}$`,
    email: `^${ATOM}(\\.${ATOM})*@${DOMAIN}$`,
    ...uriFormats,
  }),
);

/** Returns the regular expression of a format, or undefined for formats that are annotations. */
export const formatPattern = (name: string): string | undefined => FORMATS.get(name);

const sources = new Set(FORMATS.values());

/** Returns true if a regular expression is that of a format. */
export const isFormatPattern = (source: string): boolean => sources.has(source);

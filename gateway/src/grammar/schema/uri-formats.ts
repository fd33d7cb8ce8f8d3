import { IPV6 } from './ip-addresses.ts';

const PERCENT = '%[0-9A-Fa-f]{2}';
const UNRESERVED = 'A-Za-z0-9._~-';
const DELIMITERS = "!$&'()*+,;=";
const PORT = ':\\d*';

/** Characters of IRIs beyond ASCII (`ucschar` of RFC 3987): all but controls, private use and noncharacters. */
const BEYOND_ASCII = [
  '\\u00A0-\\uD7FF\\uF900-\\uFDCF\\uFDF0-\\uFFEF',
  ...Array.from({ length: 13 }, (_, i) => {
    const plane = (i + 1).toString(16);
    return `\\u{${plane}0000}-\\u{${plane}FFFD}`;
  }),
  '\\u{E1000}-\\u{EFFFD}',
].join('');
/** Characters for private use, which RFC 3987 allows in queries. */
const PRIVATE = '\\uE000-\\uF8FF\\u{F0000}-\\u{FFFFD}\\u{100000}-\\u{10FFFD}';

/** Returns the expressions of `URI` and `URI-reference` of RFC 3986. @param more additional characters to allow */
function identifiers(more: string, moreInQuery: string) {
  const some = (others: string) => `([${others}${DELIMITERS}${more}${UNRESERVED}]|${PERCENT})`;
  const character = some(':@');
  const host = `(\\[(${IPV6}|[vV][0-9A-Fa-f]+\\.[:${DELIMITERS}${UNRESERVED}]+)\\]|${some('')}*)`;
  const absolute = `//(${some(':')}*@)?${host}(${PORT})?(/${character}*)*|/(${character}+(/${character}*)*)?`;
  const path = (first: string) => `(${absolute}|${first}+(/${character}*)*)?`;
  const end = `(\\?(${some(':@/?')}|[${moreInQuery}])*)?(#${some(':@/?')}*)?`;
  const full = `[A-Za-z][A-Za-z0-9+.-]*:${path(character)}${end}`;
  return { full: `^${full}$`, reference: `^(${full}|${path(some('@'))}${end})$` };
}

const uri = identifiers('', '?');
const iri = identifiers(BEYOND_ASCII, PRIVATE);

const POINTER = '(/([^/~]|~[01])*)*';

const NAME_PART = `([A-Za-z0-9_]|${PERCENT})`;
const VARIABLE = `${NAME_PART}(\\.?${NAME_PART})*(:[1-9]\\d{0,3}|\\*)?`;
const LITERAL = `([!#$&-;=?-[\\]_a-z~${BEYOND_ASCII}${PRIVATE}]|${PERCENT})`;

/** Expressions of the formats for URIs (RFC 3986), IRIs (RFC 3987), JSON pointers (RFC 6901) and templates (RFC 6570). */
export const uriFormats: Readonly<Record<string, string>> = {
  uri: uri.full,
  'uri-reference': uri.reference,
  iri: iri.full,
  'iri-reference': iri.reference,
  'json-pointer': `^${POINTER}$`,
  'relative-json-pointer': `^(0|[1-9]\\d*)(#|${POINTER})$`,
  'uri-template': `^(${LITERAL}|\\{[+#./;?&=,!@|]?${VARIABLE}(,${VARIABLE})*\\})*$`,
};

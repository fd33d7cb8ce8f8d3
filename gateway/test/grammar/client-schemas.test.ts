import { parseExactly } from '@ptp/protocol/long-number';
import { describe, expect, test } from 'vitest';
import { jsonSchemaGrammar } from '../../src/grammar/json-schema.ts';
import { regexGrammar } from '../../src/grammar/regex.ts';
import { accepts } from './grammar-texts.ts';

const zodEmail = `^(?!\\.)(?!.*\\.\\.)([A-Za-z0-9_'+\\-\\.]*)[A-Za-z0-9_+-]@([A-Za-z0-9][A-Za-z0-9\\-]*\\.)+[A-Za-z]{2,}$`;
const tagged = (kind: string) => ({ type: 'object', properties: { k: { const: kind } }, required: ['k'] });

/** Schemas that client libraries send, each with texts that satisfy it and texts that do not. */
const cases: [name: string, schema: unknown, right: string[], wrong: string[]][] = [
  [
    'uri',
    { type: 'string', format: 'uri' },
    ['"https://example.org/a?b=c#d"', '"mailto:ada@example.org"', '"http://[2001:db8::7]:80/%7Eada"', '"urn:a:b"'],
    ['"not a uri"', '"//example.org/a"', '"http://2001:db8::7/"', '"http://a/%zz"', '"https://é.org"', '""', '":a"'],
  ],
  ['uri-reference', { format: 'uri-reference' }, ['"../a?b"', '"//a/b"', '"#c"', '""'], ['"a b"', '"1:b"', '"\\\\a"']],
  ['iri', { format: 'iri' }, ['"https://é.org/ü?\ue000"', '"a:𐀀"'], ['"https://é.org/\ue000"', '"é"', '"a:\ufffe"']],
  ['iri-reference', { format: 'iri-reference' }, ['"é/ü#ß"'], ['"é ü"', '"\\\\é"']],
  ['json-pointer', { type: 'string', format: 'json-pointer' }, ['""', '"/a~1b/0"'], ['"a"', '"/a~2"', '"/~"']],
  ['relative-json-pointer', { format: 'relative-json-pointer' }, ['"0#"', '"12/a"'], ['"/a"', '"01"', '"+1"', '"0##"']],
  [
    'uri-template',
    { format: 'uri-template' },
    ['"/a/{b}{?c,d:3,e*}"', `"it's/{+f.g}"`, '"%20"'],
    ['"/a/{b"', '"{}"', '"{b:0}"', '"%2"', '"a}"'],
  ],
  [
    'items that `not` mentions stay unevaluated',
    {
      prefixItems: [{ const: 'a' }],
      not: { not: { prefixItems: [true, { const: 'b' }] } },
      unevaluatedItems: { type: 'integer' },
    },
    ['["a"]', '[]'],
    ['["a","b"]', '["a",1]', '["a","b",1]'],
  ],
  [
    'an `$id` inside an unknown keyword names nothing',
    {
      anyOf: [{ $ref: 'x:name' }],
      $defs: {
        unknown: { not: { unknown: [{ $id: 'x:name', type: 'null' }] } },
        known: { $id: 'x:name', type: 'string' },
      },
    },
    ['"a"'],
    ['null'],
  ],
  [
    'combinators next to a type',
    {
      type: 'object',
      anyOf: [
        { properties: { a: { type: 'string' } }, required: ['a'] },
        { properties: { b: { type: 'integer' } }, required: ['b'] },
      ],
    },
    ['{"a":"s"}', '{"b":1}'],
    ['{}', '1'],
  ],
  ['required without properties', { type: 'object', properties: {}, required: ['q'] }, ['{"q":1}'], ['{}', '{"p":1}']],
  ['at least one member', { type: 'object', minProperties: 1 }, ['{"a":1}'], ['{}']],
  [
    'a number of members',
    { properties: { a: {}, b: {}, c: {} }, required: ['b'], minProperties: 2, maxProperties: 2 },
    ['{"a":1,"b":1}', '{"b":1,"c":1}'],
    ['{"b":1}', '{"a":1,"b":1,"c":1}', '{"a":1,"c":1}'],
  ],
  [
    'an unsigned 64-bit limit',
    parseExactly('{"type":"integer","minimum":0,"maximum":18446744073709551615}'),
    ['18446744073709551615'],
    ['18446744073709551616', '18446744073709552000'],
  ],
  [
    'a 64-bit limit that a parser rounded',
    JSON.parse('{"type":"integer","maximum":9223372036854775807}'),
    ['9223372036854774000'],
    ['9223372036854775808'],
  ],
  [
    'a limit next to one that a parser rounded',
    { type: 'integer', minimum: 0, maximum: 1e30, exclusiveMaximum: 5 },
    ['0', '4'],
    ['5', '-1'],
  ],
  [
    'a long constant',
    parseExactly('{"const":12345678901234567890}'),
    ['12345678901234567890'],
    ['12345678901234567000'],
  ],
  ['a modifier of a pattern', { type: 'string', pattern: '^(?i:[^a])$' }, ['"b"'], ['"A"', '"a"']],
  [
    'a leap day',
    { type: 'string', format: 'date' },
    ['"2024-02-29"', '"2000-02-29"'],
    ['"2023-02-29"', '"1900-02-29"'],
  ],
  ['microseconds since 1970', { type: 'integer', minimum: 0 }, ['1700000000000000'], ['-1']],
  ['a third', { type: 'number', minimum: 0 }, ['0.3333333333333333'], ['-0.1']],
  ['a number close to 0', { type: 'number', minimum: 1e-16, maximum: 2e-16 }, ['0.00000000000000015'], ['0.000', '0']],
  ['money', { type: 'number', multipleOf: 0.01 }, ['0.07', '12.5', '-3'], ['0.005', '1.001']],
  [
    'escaped names',
    { type: 'object', additionalProperties: { type: 'string' } },
    ['{"App\\\\Models\\\\":"src/"}', '{"a\\"b":"x"}', '{"\\u00e9":"x"}'],
    ['{"a":1}'],
  ],
  [
    'an apostrophe and a long label',
    { format: 'email' },
    [`"o'brien@internationalconference.org"`],
    ['"@x.org"', '"x"'],
  ],
  ['upper case', { type: 'string', format: 'uuid' }, ['"550E8400-E29B-41D4-A716-446655440000"'], ['"550E8400"']],
  ['nanoseconds', { type: 'string', format: 'date-time' }, ['"2024-01-01T00:00:00.123456789Z"'], ['"2024-01-01"']],
  [
    'an IPv6 address',
    { type: 'string', format: 'ipv6' },
    ['"::1"', '"2001:db8::ff00:42:8329"', '"::ffff:10.0.0.1"'],
    ['"1::2::3"', '":"'],
  ],
  [
    'a surrogate pair',
    { type: 'string', maxLength: 1 },
    ['"\\ud83d\\ude00"', '"😀"'],
    ['"\\ud83d"', '"\\ude00"', '"ab"'],
  ],
  [
    'white space',
    { type: 'array', items: { type: 'integer' } },
    ['[\n\t1\n]', '[1 , 2]', '[ ]'],
    ['[1 2]', '[  1]', '[\n \t1]', '[1\n,2]'],
  ],
  ['a constant with white space', { const: { a: [1, 2] } }, ['{"a": [1, 2]}'], ['{"a": [1,3]}']],
  ['a keyword of another type', { minimum: 5 }, ['"x"', '5', '{}'], ['4']],
  [
    'names of a record',
    { type: 'object', propertyNames: { pattern: '^a' }, additionalProperties: {} },
    ['{"ab":1}'],
    ['{"b":1}'],
  ],
  [
    'an email of zod',
    { format: 'email', pattern: zodEmail },
    ['"a.b@example.org"'],
    ['"a..b@example.org"', '".a@example.org"'],
  ],
  [
    'a decimal of pydantic',
    { type: 'string', pattern: '^(?!^[-+.]*$)[+-]?0*\\d*\\.?\\d*$' },
    ['"1.5"', '"+.5"'],
    ['"+."', '""'],
  ],
  [
    'a length and a pattern',
    { type: 'string', minLength: 3, maxLength: 5, pattern: '^[a-z][a-z0-9-]*$' },
    ['"abc"', '"a-b-c"'],
    ['"ab"', '"abcdef"', '"Abc"'],
  ],
  [
    'a type next to formats',
    { type: 'string', anyOf: [{ format: 'ipv4' }, { format: 'ipv6' }] },
    ['"1.2.3.4"', '"::"'],
    ['1', '"x"'],
  ],
  [
    'exactly one of two members',
    { type: 'object', properties: { a: {}, b: {} }, oneOf: [{ required: ['a'] }, { required: ['b'] }] },
    ['{"a":1}', '{"b":1}'],
    ['{}', '{"a":1,"b":1}'],
  ],
  [
    'items of draft 7',
    { type: 'array', items: [{ type: 'string' }], additionalItems: false },
    ['["a"]', '[]'],
    ['["a",1]', '[1]'],
  ],
  ['a set', { type: 'array', uniqueItems: true, items: { enum: ['a', 'b', 'c'] } }, ['["c","a"]', '[]'], ['["a","a"]']],
  ['an enumeration and a limit', { type: 'integer', enum: [1, 2, 3], minimum: 2 }, ['2', '3'], ['1']],
  ['a member that cannot be', { properties: { a: { type: 'string' }, n: { not: {} } } }, ['{"a":"x"}'], ['{"n":1}']],
  [
    'nested unions',
    { oneOf: [{ oneOf: [tagged('a'), tagged('b')] }, tagged('c')] },
    ['{"k":"b"}', '{"k":"c"}'],
    ['{"k":"d"}'],
  ],
  ['an anchor', { $ref: '#n', $defs: { x: { $anchor: 'n', type: 'string' } } }, ['"x"'], ['1']],
  [
    'an identifier',
    { $ref: 'other.json', $defs: { o: { $id: 'other.json', $ref: '#/$defs/x', $defs: { x: { type: 'null' } } } } },
    ['null'],
    ['1'],
  ],
  [
    'keywords next to a reference',
    { $ref: '#/$defs/s', maxLength: 1, $defs: { s: { type: 'string' } } },
    ['"a"'],
    ['"ab"', '1'],
  ],
  [
    'keywords next to a reference in draft 7',
    {
      $schema: 'http://json-schema.org/draft-07/schema#',
      properties: { a: { $ref: '#/definitions/s', maxLength: 1 } },
      definitions: { s: { type: 'string' } },
    },
    ['{"a":"ab"}'],
    ['{"a":1}'],
  ],
  [
    'merged objects',
    { allOf: [{ properties: { a: { type: 'integer' } }, required: ['a'] }, { properties: { b: { type: 'string' } } }] },
    ['{"a":1,"b":"x"}', '{"a":1}'],
    ['{"b":"x"}', '{"a":1,"c":1}'],
  ],
  [
    'patterns of names',
    {
      type: 'object',
      properties: { a: {} },
      patternProperties: { '^x-': { type: 'integer' } },
      additionalProperties: false,
    },
    ['{"a":"s","x-1":1}', '{"x-":0}'],
    ['{"x-1":"s"}', '{"b":1}'],
  ],
  [
    'a dependency',
    { properties: { card: {}, address: {} }, dependentRequired: { card: ['address'] } },
    ['{}', '{"address":1}', '{"card":1,"address":1}'],
    ['{"card":1}'],
  ],
  [
    'a condition',
    {
      properties: { k: { enum: ['a', 'b'] }, n: { type: 'integer' } },
      required: ['k'],
      if: { properties: { k: { const: 'a' } } },
      // biome-ignore lint/suspicious/noThenProperty: the keyword of JSON Schema
      then: { required: ['n'] },
    },
    ['{"k":"a","n":1}', '{"k":"b"}'],
    ['{"k":"a"}'],
  ],
  [
    'an item that must be there',
    { type: 'array', items: { type: ['integer', 'string'] }, contains: { type: 'string' } },
    ['[1,"a",2]', '["a"]'],
    ['[1]', '[]'],
  ],
  [
    'an item that must be there, next to a limit below the number of first items',
    { type: 'array', prefixItems: [{}, {}], maxItems: 1, contains: { type: 'integer' } },
    ['[1]'],
    ['[1,2]', '["a",1]', '["a"]', '[]'],
  ],
  [
    'only declared properties of all parts',
    { allOf: [{ properties: { a: {} } }], properties: { b: {} }, unevaluatedProperties: false },
    ['{"b":1,"a":1}', '{}'],
    ['{"c":1}'],
  ],
  ['limits of draft 4', { type: 'integer', minimum: 1, exclusiveMinimum: true }, ['2'], ['1']],
  ['a property of characters', { type: 'string', pattern: '^\\p{L}+$' }, ['"aé日"'], ['"1"', '""']],
  ['a word boundary', { type: 'string', pattern: '\\bfoo\\b' }, ['"a foo b"', '"foo"', '"foo-"'], ['"food"', '"afoo"']],
  ['a hyphen next to a class', { type: 'string', pattern: '^[\\w-.]+$' }, ['"a-.b"'], ['"a b"']],
  ["Python's end of text", { type: 'string', pattern: '^abc\\Z' }, ['"abc"'], ['"abcd"']],
];

describe.each(cases)('%s', (_, schema, right, wrong) => {
  test.each(right)('accepts %s', (text) => {
    JSON.parse(text);
    expect(accepts(jsonSchemaGrammar(schema, 'schema'), text)).toBe(true);
  });
  test.each(wrong)('rejects %s', (text) => {
    expect(accepts(jsonSchemaGrammar(schema, 'schema'), text)).toBe(false);
  });
});

test('undeclared properties are allowed only by an open schema', () => {
  const schema = { type: 'object', properties: { a: { type: 'integer' } }, required: ['a'] };
  const text = '{"a":1,"b":[2]}';
  expect(accepts(jsonSchemaGrammar(schema, 'schema'), text)).toBe(false);
  expect(accepts(jsonSchemaGrammar(schema, 'schema', { open: true }), text)).toBe(true);
});

describe('regular expressions that match whole texts', () => {
  test.each<[string, string[], string[]]>([
    ['^[0-9]{4}$', ['2024'], ['202', '20245']],
    ['a|b', ['a', 'b'], ['ab', 'xa']],
    ['^a|b$', ['a', 'b'], ['ax']],
    ['(?i)yes|no', ['YES', 'No'], ['maybe']],
    ['(?P<year>\\d{4})-(?P<month>\\d\\d)', ['2024-05'], ['2024']],
    ['(?:(?:a\\b|b-){1,2}){0,9}', ['b-a', 'b-b-b-b-'], ['ab-', 'bb']],
    ['(?:(?!-)[a-z-])*x', ['abx'], ['a-x']],
    ['[^"]+\\@\\:\\-', ['x@:-'], ['@:-']],
    ['{"a": \\d+}', ['{"a": 12}'], ['"a": 12']],
    ['(?=.*\\d)(?=.*[a-z]).{4,6}', ['ab12', '1aaaaa'], ['abcd', 'a1', 'aaaaaa1']],
  ])('%s', (pattern, right, wrong) => {
    const grammar = regexGrammar(pattern, 'utf8', 'whole');
    for (const text of right) expect([text, accepts(grammar, text)]).toEqual([text, true]);
    for (const text of wrong) expect([text, accepts(grammar, text)]).toEqual([text, false]);
  });
});

import { Ajv2020 } from 'ajv/dist/2020.js';
import formats from 'ajv-formats';
import { describe, expect, test } from 'vitest';
import { jsonSchemaGrammar } from '../../src/grammar/json-schema.ts';
import { jsonObject } from '../../src/grammar/json-text.ts';
import { accepts, randoms, randomText } from './grammar-texts.ts';

const ajv = new Ajv2020({ strict: false });
(formats as unknown as (validator: Ajv2020) => void)(ajv);

const person = {
  type: 'object',
  properties: {
    name: { type: 'string', minLength: 1, maxLength: 12 },
    age: { type: 'integer', minimum: 0, maximum: 130 },
    tags: { type: 'array', items: { enum: ['a', 'b', 'c'] }, minItems: 1, maxItems: 3 },
    address: {
      type: ['object', 'null'],
      properties: { street: { type: 'string' }, zip: { type: 'string', pattern: '^\\d{5}$' } },
      required: ['zip'],
      additionalProperties: false,
    },
  },
  required: ['name', 'tags'],
  additionalProperties: false,
};

const somewhere = { type: 'string', pattern: 'a"b|\\\\c' };
const schemas: Record<string, object | boolean> = {
  person,
  'any value': true,
  'any object': { type: 'object' },
  'numbers of all kinds': { type: 'array', items: { type: ['number', 'null', 'boolean'] }, maxItems: 4 },
  'a record of integers': { type: 'object', additionalProperties: { type: 'integer' } },
  'known members and others': {
    type: 'object',
    properties: { id: { type: 'integer' }, ideal: { type: 'boolean' }, '': { type: 'null' }, 'é"': { const: 1 } },
    required: ['id'],
    additionalProperties: { type: 'string', maxLength: 3 },
  },
  'optional members only': { type: 'object', properties: { a: { const: 1 }, b: { const: 2 }, c: { const: 3 } } },
  tuple: { type: 'array', prefixItems: [{ type: 'string' }, { type: 'number' }], items: false },
  'tuple and more': {
    type: 'array',
    prefixItems: [{ type: 'string' }, { type: 'boolean' }],
    items: { type: 'null' },
    minItems: 1,
    maxItems: 4,
  },
  'a tree': {
    $ref: '#/$defs/node',
    $defs: {
      node: {
        type: 'object',
        properties: {
          value: { type: 'boolean' },
          children: { type: 'array', items: { $ref: '#/$defs/node' }, maxItems: 2 },
        },
        required: ['value', 'children'],
        additionalProperties: false,
      },
    },
  },
  'a list that refers to the whole': {
    type: 'object',
    properties: { next: { anyOf: [{ $ref: '#' }, { type: 'null' }] } },
    required: ['next'],
    additionalProperties: false,
  },
  alternatives: {
    oneOf: [{ type: 'string', maxLength: 5 }, { type: 'integer' }, { type: 'array', items: { const: 'x' } }],
  },
  'alternatives by a constant': {
    oneOf: [
      { type: 'object', properties: { kind: { const: 'a' }, n: { type: 'integer' } }, required: ['kind', 'n'] },
      { type: 'object', properties: { kind: { enum: ['b', 'c'] } }, required: ['kind'] },
    ],
  },
  'values of all types': { enum: ['x', 1, null, true, { a: [1, 'é"\n'] }, -0.5] },
  'values of a type': { type: 'string', enum: ['x', 1, null] },
  'integers above -3': { type: 'integer', exclusiveMinimum: -3, maximum: 1000 },
  'integers of a narrow range': { type: 'integer', minimum: 995, maximum: 1012 },
  'negative integers': { type: 'integer', minimum: -120, maximum: -7 },
  'multiples of 7': { type: 'integer', minimum: 100, maximum: 500, multipleOf: 7 },
  'a number below 1': { type: 'number', minimum: 0, exclusiveMaximum: 1 },
  'a number in a narrow range': { type: 'number', exclusiveMinimum: 0.25, maximum: 0.2505 },
  'numbers around 0': { type: 'number', minimum: -1.5, maximum: 2.25 },
  'tiny numbers': { type: 'number', minimum: 1e-16, maximum: 2e-16 },
  'limits of more than 15 digits': { type: 'number', minimum: 1 / 3, exclusiveMaximum: 1 / 3 + 2e-16 },
  'numbers below 1e-300': { type: 'number', exclusiveMinimum: -1e-300, maximum: 3e-310 },
  'numbers up to 1e30': { type: 'number', minimum: 1e29, maximum: 1e30 },
  'exclusive limits next to other doubles': { type: 'number', exclusiveMinimum: 123456.25, exclusiveMaximum: 123456.5 },
  'numbers without an end': { type: 'number', minimum: 99.5 },
  'a code': { type: 'string', pattern: '^[A-Z]{2,3}-(\\d{4}|x+)(\\.[^\\s"]?)?$' },
  ...Object.fromEntries(
    [
      ...['date', 'time', 'date-time', 'uuid', 'ipv4', 'hostname', 'email'],
      ...['uri-reference', 'json-pointer', 'relative-json-pointer'],
    ].map((format) => [format, { type: 'string', format }]),
  ),
};

describe('every text of the grammar satisfies the schema', () => {
  test.each(Object.entries(schemas))('%s', (_, schema) => {
    const valid = ajv.compile(schema);
    const grammar = jsonSchemaGrammar(schema, 'schema');
    const random = randoms(7);
    const texts = Array.from({ length: 60 }, () => randomText(grammar, random)).filter((text) => text !== undefined);
    expect(texts.length).toBeGreaterThan(10);
    for (const text of texts) {
      const value = JSON.parse(text);
      expect([text, valid(value)]).toEqual([text, true]);
    }
  });

  test('any object is a JSON object', () => {
    const random = randoms(3);
    const texts = Array.from({ length: 60 }, () => randomText(jsonObject, random)).filter((text) => text !== undefined);
    expect(texts.length).toBeGreaterThan(10);
    for (const text of texts) expect(JSON.parse(text)).toBeTypeOf('object');
  });
});

describe('common values are in the grammar', () => {
  const texts: Record<string, unknown[]> = {
    person: [
      { name: 'Ada', age: 36, tags: ['a'], address: null },
      { name: 'Grüße 🎉', tags: ['a', 'b', 'c'], address: { zip: '10115' } },
      { name: 'x', age: 130, tags: ['c'], address: { street: '', zip: '00000' } },
    ],
    'any value': [null, true, -1.5e10, 'x"\\\n\u0001', [], {}, [[{ a: [1, 2] }]]],
    'a record of integers': [{}, { a: 1 }, { a: 1, b: -20 }],
    'known members and others': [
      { id: 1 },
      { id: 1, idea: 'x', i: 'y', ideally: 'z' },
      { id: 1, ideal: true, '': null },
    ],
    'optional members only': [{}, { b: 2 }, { a: 1, c: 3 }, { a: 1, b: 2, c: 3 }],
    tuple: [[], ['x'], ['x', 1]],
    'tuple and more': [['x'], ['x', true], ['x', true, null, null]],
    'a tree': [{ value: true, children: [{ value: false, children: [] }] }],
    'a list that refers to the whole': [{ next: { next: { next: null } } }],
    alternatives: ['abcde', -12, ['x', 'x']],
    'integers above -3': [-2, -1, 0, 7, 999, 1000],
    'integers of a narrow range': [995, 999, 1000, 1009, 1012],
    'negative integers': [-120, -119, -99, -10, -7],
    'multiples of 7': [105, 112, 497],
    'a number below 1': [0, 0.5, 0.999999],
    'a number in a narrow range': [0.2505, 0.2504, 0.250000001],
    'numbers around 0': [-1.5, -1, -0.25, 0, 2, 2.25],
    'numbers without an end': [99.5, 99.51, 100, 123456789],
    'a code': ['AB-1234', 'ABC-x', 'AB-xxx.é', 'AB-1234.'],
    date: ['2026-02-28', '2024-12-31'],
    'date-time': ['2026-02-28T23:59:59Z', '2026-02-28T23:59:59.123+01:00'],
    email: ['ada@example.org', 'a.b+c@mail.example.co'],
  };
  test.each(Object.entries(texts))('%s', (name, values) => {
    const grammar = jsonSchemaGrammar(schemas[name], 'schema');
    for (const value of values) {
      for (const space of [undefined, 2]) {
        const text = JSON.stringify(value, null, space);
        expect([text, accepts(grammar, text)]).toEqual([text, true]);
      }
    }
  });
});

test('a pattern matches anywhere in the string; enumerated values are spelled as by JSON.stringify', () => {
  const grammar = jsonSchemaGrammar(somewhere, 'schema');
  for (const value of ['a"b', 'xx a"b yy', '\\c']) expect(accepts(grammar, JSON.stringify(value))).toBe(true);
  for (const value of ['ab', '', 'c']) expect(accepts(grammar, JSON.stringify(value))).toBe(false);
  const values = jsonSchemaGrammar(schemas['values of all types'], 'schema');
  for (const value of ['x', 1, null, { a: [1, 'é"\n'] }]) expect(accepts(values, JSON.stringify(value))).toBe(true);
  expect(accepts(values, JSON.stringify({ a: [1, 'é"\n'] }, null, 2))).toBe(true);
});

describe('values that do not satisfy the schema are not in the grammar', () => {
  const texts: Record<string, string[]> = {
    person: [
      '{"tags":["a"]}',
      '{"name":"","tags":["a"]}',
      '{"name":"x","tags":[]}',
      '{"name":"x","age":131,"tags":["a"]}',
    ],
    'known members and others': ['{"id":1,"id":2}', '{"id":1,"ideal":"x"}', '{"idea":"x"}', '{"id":1,"x":"long"}'],
    'optional members only': ['{"b":2,"a":1}', '{"a":1,}', '{,"a":1}', '{"d":1}'],
    'any value': ['', '01', '1.', '+1', '"\n"', '"\\x"', '"\\ud800"', '[1,]', '{"a"}', 'nul', '1 '],
    tuple: ['["x",1,2]', '[1]'],
    'integers above -3': ['-3', '1001', '1.0', '-0', '00'],
    'integers of a narrow range': ['994', '1013', '99', '9950'],
    'negative integers': ['-121', '-6', '7', '-1200'],
    'multiples of 7': ['104', '99', '504'],
    'a number below 1': ['1', '1.0', '-0.5', '1e-3'],
    'a number in a narrow range': ['0.25', '0.2506', '0.250'],
    'numbers around 0': ['-1.51', '2.26', '3', '-2'],
    'a code': ['"A-1234"', '"AB-12345"', '"AB-"', '"AB-x.\\""'],
    date: ['"2026-02-30"', '"2026-13-01"'],
  };
  test.each(Object.entries(texts))('%s', (name, wrong) => {
    const grammar = jsonSchemaGrammar(schemas[name], 'schema');
    for (const text of wrong) expect([text, accepts(grammar, text)]).toEqual([text, false]);
  });
});

describe('an unsupported keyword is an error that names it', () => {
  test.each([
    [{ type: 'foo' }, '`schema.type` must be object, array, string, number, integer, boolean, null, got "foo"'],
    [{ type: 'array', uniqueItems: true }, '`schema.uniqueItems` is not supported'],
    [
      { type: 'string', pattern: '(?<=a)b' },
      '`schema.pattern` must be a supported regular expression: `(?<=a)` is not supported',
    ],
    [{ type: 'string', pattern: '(?=a)b' }, '`schema` must allow some value: no value satisfies all of its keywords'],
    [{ type: 'string', pattern: '(a)\\1' }, '`schema.pattern` must be a supported regular expression: `\\1` is not'],
    [
      { type: 'string', pattern: '(?:(?:a\\b|b){0,64}){0,64}' },
      '`(?:a\\b|b){0,64}` is not supported: it repeats assertions more than 256 times',
    ],
    [{ type: 'string', pattern: '(' }, '`schema.pattern` must be a supported regular expression'],
    [{ $ref: '#/$defs/x' }, '`schema.$ref` must be a reference to a part of the schema, got "#/$defs/x"'],
    [{ $ref: '#/%zz' }, '`schema.$ref` must be a reference to a part of the schema, got "#/%zz"'],
    [{ $ref: 'http://example.org/x' }, '`schema.$ref` must be a reference within the schema'],
    [{ type: 'integer', minimum: 10, maximum: 5 }, '`schema` must allow at least one number: its range is empty'],
    [
      { type: 'integer', minimum: 8, maximum: 13, multipleOf: 7 },
      '`schema` must allow at least one number: its range is empty',
    ],
    [{ type: 'number', multipleOf: 0 }, '`schema.multipleOf` must be a number above 0, got 0'],
    [{ enum: [] }, '`schema.enum` must be not empty, got an array of 0'],
    [{ type: 'string', enum: [1] }, '`schema.enum` must have a value of `type` (string)'],
    [{ oneOf: [null, {}] }, '`schema.oneOf[0]` must be a schema, got null'],
    [
      {
        oneOf: [
          { type: 'object', required: 5 },
          { type: 'object', required: 5 },
        ],
      },
      '`schema.oneOf[0].required` must be an array of names, got 5',
    ],
    [{ type: 'array', minItems: 3, maxItems: 2 }, '`schema.minItems` must be at most `maxItems` (2), got 3'],
    [{ type: 'string', minLength: -1 }, '`schema.minLength` must be an integer >= 0, got -1'],
    [false, '`schema` must allow some value: no value satisfies all of its keywords'],
    [{ properties: { a: false }, required: ['a'] }, '`schema` must allow some value: no value satisfies all'],
    [
      { type: 'object', properties: { a: { $ref: '#' } }, required: ['a'] },
      '`schema` must allow some value: no value satisfies all',
    ],
    [{ anyOf: [{ $ref: '#' }, { type: 'string' }] }, '`schema` must not refer to itself without a property between'],
    [
      { oneOf: [{ type: 'string', format: 'date' }, { type: 'string', format: 'time' }, { format: 'date' }] },
      '`schema.oneOf` must have schemas that exclude each other',
    ],
    [{ not: { format: 'date' } }, '`schema.not` is not supported'],
    [
      { not: { properties: { a: { type: 'object', additionalProperties: false } } } },
      '`schema.not.properties.a` is not supported where values must not satisfy it',
    ],
    [{ type: 'array', contains: {}, minContains: 2 }, '`schema.minContains` must be 0 or 1'],
    [{ type: 'object', minProperties: 2, additionalProperties: true }, '`schema.minProperties` must be at most 1'],
    [{ $dynamicRef: '#a' }, '`schema.$dynamicRef` is not supported'],
    [{ type: 'string', pattern: '^[a-z]{3}$', minLength: 4 }, '`schema` must allow some value'],
    ['x', '`schema` must be a schema, got "x"'],
    [
      Array.from({ length: 80 }).reduce((inner) => ({ type: 'array', items: inner }), {}),
      'must be nested at most 64 levels deep',
    ],
  ])('%j', (schema, message) => {
    const compile = () => jsonSchemaGrammar(schema, 'schema');
    expect(compile).toThrow(message);
  });
});

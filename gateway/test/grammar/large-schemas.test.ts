import { describe, expect, test } from 'vitest';
import { choice, literal, sequence } from '../../src/grammar/expression.ts';
import { jsonSchemaGrammar } from '../../src/grammar/json-schema.ts';
import { accepts } from './grammar-texts.ts';

describe('very large schemas', () => {
  const names = (count: number) => Array.from({ length: count }, (_, i) => `n${i}`);
  test.each([
    ['values', { enum: names(1001) }, '`schema.enum` must have at most 1000 entries, got 1001'],
    [
      'members',
      { properties: Object.fromEntries(names(1001).map((name) => [name, {}])) },
      '`schema.properties` must have at most 1000 entries, got 1001',
    ],
    ['characters', { const: 'x'.repeat(1_000_001) }, '`schema` must have at most 1000000 characters as JSON'],
    [
      'values of a set',
      { type: 'array', uniqueItems: true, items: { enum: names(101) } },
      '`schema.uniqueItems` must have at most 100 different values, got 101',
    ],
    [
      'combinations without values',
      {
        allOf: Array(2).fill({ anyOf: names(1000).map((_, i) => ({ type: 'string', minLength: i, maxLength: i })) }),
      },
      '`schema` must need at most 100000 comparisons of two alternatives',
    ],
    [
      'many alternatives that do not exclude each other',
      {
        oneOf: [
          ...names(100).map((name) => ({ type: 'object', properties: { k: { const: name } }, required: ['k'] })),
          { type: 'object', properties: { k: { const: 'n0' }, n: {} }, required: ['k', 'n'] },
        ],
      },
      '`schema.oneOf` must have schemas that exclude each other by `type` or by different values of a required property, but [0] and [100] do not; use `anyOf` instead',
    ],
    [
      'alternatives that all refer to one large schema',
      {
        oneOf: Array(1000).fill({ $ref: '#/$defs/a' }),
        $defs: {
          a: {
            type: 'object',
            required: Array.from({ length: 3000 }, (_, i) => `p${i % 13}`),
            properties: Object.fromEntries(
              Array.from({ length: 13 }, (_, i) => [`p${i}`, { enum: Array.from({ length: 500 }, (_, k) => k) }]),
            ),
          },
        },
      },
      '`schema.oneOf` must have schemas that exclude each other by `type` or by different values of a required property, but [0] and [1] do not; use `anyOf` instead',
    ],
    [
      'states that a search for a match examines',
      { type: 'string', pattern: '^(?=.*a.{12}$)(?=.*b.{12}$)(?=[ab]+$)' },
      '`schema.pattern` has too many states together with the other limits of the string',
    ],
    ['patterns', { type: 'string', pattern: 'a'.repeat(2001) }, 'at most 2000 characters are supported, got 2001'],
    [
      'all patterns together',
      { anyOf: Array.from({ length: 11 }, (_, i) => ({ type: 'string', pattern: `${i}`.padEnd(2000, 'a') })) },
      '`schema.anyOf[10].pattern` is too long: all patterns together must have at most 20000 characters',
    ],
  ])('%s are refused', (_, schema, message) => {
    expect(() => jsonSchemaGrammar(schema, 'schema')).toThrow(message);
  });

  test.each<[string, object, unknown]>([
    ['a name', { properties: { ['n'.repeat(90_000)]: { type: 'null' } }, additionalProperties: true }, { m: 1 }],
    [
      'many names',
      {
        properties: Object.fromEntries(names(900).map((name) => [name.padEnd(90, 'x'), {}])),
        additionalProperties: true,
      },
      { [`${'n5'.padEnd(90, 'x')}y`]: 1, n: 2 },
    ],
  ])('%s', (_, schema, value) => {
    expect(accepts(jsonSchemaGrammar(schema, 'schema'), JSON.stringify(value))).toBe(true);
  });

  test('combinations of many constants', () => {
    const constants = (from: number) => ({
      anyOf: names(1500)
        .slice(from, from + 1000)
        .map((name) => ({ const: name })),
    });
    const grammar = jsonSchemaGrammar({ allOf: [constants(0), constants(500)] }, 'schema');
    for (const [name, isIn] of [
      ['n499', false],
      ['n500', true],
      ['n999', true],
      ['n1000', false],
    ] as const) {
      expect([name, accepts(grammar, `"${name}"`)]).toEqual([name, isIn]);
    }
  });

  test('a set of many values', () => {
    const grammar = jsonSchemaGrammar({ type: 'array', uniqueItems: true, items: { enum: names(100) } }, 'schema');
    expect(accepts(grammar, JSON.stringify(names(100)))).toBe(true);
    expect(accepts(grammar, JSON.stringify([...names(100), 'n0']))).toBe(false);
    expect(accepts(grammar, '["n7","n8","n7"]')).toBe(false);
  });

  test('a state with too many alternatives', () => {
    const options = names(5000).map((name) => sequence(literal('n'), literal(name)));
    const message = 'the grammar of the output must have at most 4096 alternatives at one position';
    expect(() => accepts(choice(...options), 'n')).toThrow(message);
  });

  test('more alternatives in the middle of a text reduce the choice, without an error', () => {
    const options = names(5000).map((name) => sequence(literal('n'), literal(name)));
    const grammar = sequence(literal('x'), choice(...options));
    const [first, last] = [names(5000)[0], names(5000)[4999]];
    expect(accepts(grammar, `xn${first}`)).toBe(true);
    expect(accepts(grammar, `xn${last}`)).toBe(false);
  });

  test('a long string with a lookahead', () => {
    const grammar = jsonSchemaGrammar({ type: 'string', minLength: 5000, pattern: '^(?!.*--)[a-z-]*$' }, 'schema');
    expect(accepts(grammar, `"${'a-'.repeat(2500)}"`)).toBe(true);
    expect(accepts(grammar, `"${'a'.repeat(4999)}"`)).toBe(false);
  });

  test('a long value', () => {
    const grammar = jsonSchemaGrammar({ const: '€'.repeat(90_000) }, 'schema');
    expect(accepts(grammar, '"€€€"')).toBe(false);
  });

  test('many optional members, and a pattern with many ways to match, are followed to the end', () => {
    const optional = {
      type: 'object',
      properties: Object.fromEntries(names(900).map((name) => [name, { type: 'null' }])),
    };
    expect(accepts(jsonSchemaGrammar(optional, 'schema'), '{"n3":null,"n899":null}')).toBe(true);
    const ways = jsonSchemaGrammar({ type: 'string', pattern: '^(x?){100000}$' }, 'schema');
    expect(accepts(ways, `"${'x'.repeat(300)}"`)).toBe(true);
    const ambiguous = jsonSchemaGrammar({ type: 'string', pattern: '^(\\w{1,20} ?){1,60}$' }, 'schema');
    expect(accepts(ambiguous, `"${'a'.repeat(1200)}"`)).toBe(true);
    expect(accepts(ambiguous, `"${'a'.repeat(1201)}"`)).toBe(false);
  });

  test('a text may be nested deeply', () => {
    const deep = `${'['.repeat(20_000)}${']'.repeat(20_000)}`;
    expect(accepts(jsonSchemaGrammar(true, 'schema'), deep)).toBe(true);
  });
});

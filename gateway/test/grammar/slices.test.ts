import { expect, test } from 'vitest';
import { jsonSchemaGrammar } from '../../src/grammar/json-schema.ts';
import { inSlices } from '../../src/grammar/slices.ts';
import { accepts } from './grammar-texts.ts';

/** Duration that makes a slice end at its first checkpoint. */
const SHORTEST = -1;

/** Returns the verdict on each text, or the error of the schema. */
function verdicts(compile: () => ReturnType<typeof jsonSchemaGrammar>, texts: readonly string[]): unknown {
  const grammar = compile();
  return texts.map((text) => accepts(grammar, text));
}

const node = {
  $defs: {
    node: {
      type: 'object',
      properties: {
        kind: { enum: ['leaf', 'fork'] },
        left: { $ref: '#/$defs/node' },
        right: { anyOf: [{ $ref: '#/$defs/node' }, { type: 'null' }] },
        label: { type: 'string', pattern: '^[a-z]+$', maxLength: 4 },
        size: { oneOf: [{ type: 'integer', minimum: 3 }, { type: 'string' }] },
        never: { allOf: [{ type: 'string' }, { type: 'number' }] },
      },
      required: ['kind'],
      additionalProperties: { type: 'boolean' },
    },
  },
  $ref: '#/$defs/node',
};
const texts = [
  '{"kind":"leaf"}',
  '{"kind":"fork","left":{"kind":"leaf","label":"abc"},"right":null,"size":3,"extra":true}',
  '{"kind":"fork","left":{"label":"abc"}}',
  '{"kind":"leaf","size":2}',
  '{"kind":"leaf","never":"x"}',
  '{"kind":"leaf","label":"abcde"}',
];

test('a schema compiled in slices has the same grammar', async () => {
  let slices = 0;
  const compile = (schema: unknown) => {
    slices++;
    return jsonSchemaGrammar(schema, 'schema');
  };
  const sliced = await inSlices(() => compile({ ...node, $comment: 'sliced' }), SHORTEST);
  expect(slices).toBeGreaterThan(10);
  expect(verdicts(() => sliced, texts)).toEqual(verdicts(() => jsonSchemaGrammar(node, 'schema'), texts));
  expect(verdicts(() => sliced, texts)).toEqual([true, true, false, false, false, false]);
});

test('a schema compiled in slices has the same error', async () => {
  const schema = { type: 'object', properties: { a: node.$defs.node.properties.size, b: { not: { pattern: '(' } } } };
  const inOne = () => jsonSchemaGrammar(schema, 'schema');
  expect(inOne).toThrow('`schema.properties.b');
  await expect(inSlices(inOne, SHORTEST)).rejects.toThrow('`schema.properties.b');
});

const tree = {
  type: 'object',
  properties: { name: { type: 'string' }, children: { type: 'array', items: { $ref: '#/definitions/T' } } },
  required: ['name', 'children'],
};

test.each([
  { $ref: '#/definitions/T' },
  { type: 'object', properties: { t: { $ref: '#/definitions/T' } }, required: ['t'] },
])('an object that contains itself has each member once: %o', async (root) => {
  const schema = { $schema: 'http://json-schema.org/draft-07/schema#', ...root, definitions: { T: tree } };
  const whole = jsonSchemaGrammar(schema, 'schema');
  const sliced = await inSlices(() => jsonSchemaGrammar({ ...schema, $comment: 'sliced' }, 'schema'), SHORTEST);
  const wrapped = (text: string) => ('$ref' in root ? text : `{"t":${text}}`);
  const leaf = '{"name":"a","children":[]}';
  const nested = `{"name":"a","children":[${leaf}]}`;
  const twice = '{"name":"a","children":[],"children":[]}';
  for (const grammar of [whole, sliced]) {
    expect([leaf, nested, twice].map((text) => accepts(grammar, wrapped(text)))).toEqual([true, true, false]);
  }
});

test('a schema with too many comparisons of alternatives fails in slices too', async () => {
  const numbers = Array.from({ length: 200 }, (_, i) => ({ type: 'number', minimum: i, maximum: i + 0.5 }));
  const strings = Array.from({ length: 199 }, (_, i) => ({ type: 'string', minLength: i }));
  const pair = { allOf: [{ anyOf: numbers }, { anyOf: [...strings, { type: 'number' }] }] };
  const schema = { type: 'array', prefixItems: [0, 1, 2].map(() => structuredClone(pair)) };
  const compile = () => jsonSchemaGrammar(schema, 'schema');
  const problem = 'must need at most 100000 comparisons of two alternatives';
  expect(compile).toThrow(problem);
  await expect(inSlices(compile, SHORTEST)).rejects.toThrow(problem);
});

test('pauses do not count comparisons of alternatives again', async () => {
  const numbers = Array.from({ length: 60 }, (_, i) => ({ type: 'number', minimum: i, maximum: i + 0.5 }));
  const strings = Array.from({ length: 59 }, (_, i) => ({ type: 'string', minLength: i }));
  const later = Array.from({ length: 32 }, (_, i) => ({ allOf: [{ type: 'number' }, { multipleOf: i + 1 }] }));
  const schema = { allOf: [{ anyOf: numbers }, { anyOf: [...strings, { type: 'number' }] }, { anyOf: later }] };
  const grammar = await inSlices(() => jsonSchemaGrammar(schema, 'schema'), SHORTEST);
  expect(['7', '7.5', '7.6'].map((text) => accepts(grammar, text))).toEqual([true, false, false]);
});

test('the event loop runs between slices, and several compilations take turns', async () => {
  const properties = Object.fromEntries(
    Array.from({ length: 20 }, (_, i) => [`p${i}`, { type: 'string', maxLength: i }]),
  );
  const order: string[] = [];
  const compile = (name: string) =>
    inSlices(() => {
      order.push(name);
      return jsonSchemaGrammar({ type: 'object', properties, $comment: name }, 'schema');
    }, SHORTEST);
  let turns = 0;
  const timer = setImmediate(function count() {
    turns++;
    if (turns < 10_000) setImmediate(count);
  });
  await Promise.all([compile('a'), compile('b')]);
  clearImmediate(timer);
  const slices = order.length;
  turns = Math.min(turns, slices);
  expect(turns).toBeGreaterThan(slices / 2);
  expect(order.slice(2, 12).join('')).toBe('ababababab');
});

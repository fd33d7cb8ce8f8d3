import { expect, test } from 'vitest';
import { z } from 'zod';
import { PtpError } from '../src/errors.ts';
import { parseFields, requireField, requireTokens } from '../src/validation.ts';

test.each([
  [3, '3'],
  ['x', '"x"'],
  [undefined, 'nothing'],
  [[1, 2], 'an array of 2'],
  [{ a: 1 }, 'an object'],
  ['x'.repeat(100), `"${'x'.repeat(79)}...`],
])('an error names field, limit and value: %j', (value, shown) => {
  const error = new PtpError('out_of_range', `\`top_p\` must be in (0, 1], got ${shown}`, { field: 'top_p' });
  expect(() => requireField(false, 'top_p', 'in (0, 1]', value, 'out_of_range')).toThrow(error);
});

test('the first token outside the vocabulary is named', () => {
  requireTokens('draft', [0, 4], 5);
  const expected = { field: 'draft', message: '`draft[1]` must be in [0, 4], got 5' };
  expect(() => requireTokens('draft', [0, 5, 6], 5)).toThrow(expect.objectContaining(expected));
});

test('the path of a field includes its parent and array indices', () => {
  const schema = z.object({ a: z.array(z.object({ b: z.number('a number') }), 'an array') }, 'an object');
  expect(parseFields(schema, { a: [{ b: 1 }] })).toEqual({ a: [{ b: 1 }] });
  expect(() => parseFields(schema, { a: [{ b: 'x' }] })).toThrow('`a[0].b` must be a number, got "x"');
  expect(() => parseFields(schema, {}, 'tools[2]')).toThrow('`tools[2].a` must be an array, got nothing');
  expect(() => parseFields(schema, 7)).toThrow('`body` must be an object, got 7');
});

test('an error in a union describes the alternative that matched best', () => {
  const schema = z.object({ stop: z.union([z.string('a string'), z.array(z.string('a string'))]) });
  expect(() => parseFields(schema, { stop: ['a', 1] })).toThrow('`stop[1]` must be a string, got 1');
});

import { expect, test } from 'vitest';
import { ByteTable } from '../../src/text/byte-table.ts';

test('returns each byte string, empty and long ones included, and nothing outside', () => {
  const strings = ['a', '', 'x'.repeat(100), 'ä', ''].map((text) => new TextEncoder().encode(text));
  const table = new ByteTable(strings.length, (index) => strings[index] ?? new Uint8Array());
  expect(strings.map((_, index) => table.at(index))).toEqual(strings);
  expect(table.at(strings.length)).toBeUndefined();
  expect(table.at(-1)).toBeUndefined();
  expect(table.maxLength).toBe(100);
  expect(new ByteTable(0, () => new Uint8Array()).maxLength).toBe(0);
});

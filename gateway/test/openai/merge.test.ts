import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { merge } from '../../src/openai/merge.ts';

async function* every(millis: number, values: string[], ended: string[] = []): AsyncGenerator<string> {
  try {
    for (const value of values) {
      await sleep(millis);
      yield value;
    }
  } finally {
    ended.push(values[0] ?? '');
  }
}

async function all<T>(source: AsyncIterable<T>): Promise<T[]> {
  const values: T[] = [];
  for await (const value of source) values.push(value);
  return values;
}

test('yields values in order of arrival', async () => {
  expect(await all(merge([every(40, ['slow']), every(1, ['a', 'b'])]))).toEqual(['a', 'b', 'slow']);
});

test('yields nothing for no sources', async () => {
  expect(await all(merge([]))).toEqual([]);
});

test('ends all sources if the iteration ends early', async () => {
  const ended: string[] = [];
  for await (const _ of merge([every(1, ['a', 'b'], ended), every(5, ['c', 'd'], ended)])) break;
  await sleep(20);
  expect(ended.sort()).toEqual(['a', 'c']);
});

test('throws the error of any source', async () => {
  async function* failing(): AsyncGenerator<string> {
    yield 'x';
    throw new Error('broken');
  }
  await expect(all(merge([failing(), every(1, ['a', 'b', 'c'])]))).rejects.toThrow('broken');
});

import { expect, test } from 'vitest';
import { checkJsonSize } from '../../src/http/json-size.ts';

const check = (text: string) => checkJsonSize(new TextEncoder().encode(text));

test.each([
  ['130,000 empty messages', JSON.stringify({ input: Array(130_000).fill({ role: 'user', content: '' }) }), 'arrays'],
  ['a million numbers', JSON.stringify({ prompt: Array(1_000_000).fill(1) }), 'at most 300000 values, got 1000000'],
  ['20,000 empty arrays', '[],'.repeat(20_000), 'arrays and objects'],
])('rejects %s', async (_, text, message) => {
  await expect(check(text)).rejects.toMatchObject({
    code: 'invalid_argument',
    message: expect.stringContaining(message),
  });
});

test.each([
  ['a text with more commas, brackets and digits than values are allowed', { prompt: ',[{1'.repeat(500_000) }],
  ['escaped quotes and backslashes', { prompt: `${'\\"'.repeat(200_000)},[` }],
  ['a prompt of 262,144 tokens', { prompt: Array(262_144).fill(151_000) }],
  ['a chat of 3,000 messages in parts', { messages: Array(3000).fill({ role: 'user', content: [{ type: 'text' }] }) }],
])('accepts %s', async (_, body) => {
  await check(JSON.stringify(body));
});

test('checks large texts in slices, and only one slice in each turn of the event loop', async () => {
  const text = new TextEncoder().encode(JSON.stringify({ prompt: 'a, "b" '.repeat(450_000) }));
  expect(text.length).toBeGreaterThan(4_000_000);
  let turns = 0;
  let done = false;
  const count = () => {
    turns++;
    if (!done) setImmediate(count);
  };
  count();
  await Promise.all(Array.from({ length: 4 }, () => checkJsonSize(text)));
  done = true;
  expect(turns).toBeGreaterThan(100);
});

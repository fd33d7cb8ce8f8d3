import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { opensThoughts, ReasoningReader } from '../../src/openai/reasoning.ts';
import { tokenizer } from '../testing/test-server.ts';

function read(pieces: readonly string[], isOpen: boolean) {
  const reader = new ReasoningReader(isOpen);
  const parts = [...pieces.map((piece) => reader.push(piece)), reader.end()];
  return {
    reasoning: parts.map(({ reasoning }) => reasoning).join(''),
    text: parts.map(({ text }) => text).join(''),
  };
}

describe('splits thoughts from text, however the answer is cut', () => {
  test.each([
    ['<think>\nLet me see.\n</think>\n\nIt is 4.\n', false, 'Let me see.', 'It is 4.\n'],
    ['\n <think>a < b </thin</think>c', false, 'a < b </thin', 'c'],
    ['Let me see.\n</think>\n\nIt is 4.', true, 'Let me see.', 'It is 4.'],
    ['\nLet me', true, 'Let me', ''],
    ['<think>\n\n</think>\n\nYes', false, '', 'Yes'],
    ['<think>cut off </th', false, 'cut off </th', ''],
    ['It is <think>no</think> tag', false, '', 'It is <think>no</think> tag'],
    ['  <thi', false, '', '  <thi'],
    [' plain\n', false, '', ' plain\n'],
    ['', false, '', ''],
  ])('%j', (answer, isOpen, reasoning, text) => {
    const cuts = fc.array(fc.nat(answer.length)).map((at) => [0, ...at.sort((a, b) => a - b), answer.length]);
    const property = fc.property(cuts, (at) => {
      const pieces = at.slice(1).map((end, i) => answer.slice(at[i], end));
      expect(read(pieces, isOpen)).toEqual({ reasoning, text });
    });
    fc.assert(property, { numRuns: 50 });
  });
});

test('a prompt may open the thoughts', () => {
  expect(opensThoughts(tokenizer.encode('assistant\n<think>\n'), tokenizer)).toBe(true);
  expect(opensThoughts(tokenizer.encode('assistant\n<think>\n\n</think>\n\n'), tokenizer)).toBe(false);
});

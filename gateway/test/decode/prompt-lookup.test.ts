import fc from 'fast-check';
import { expect, test } from 'vitest';
import { PromptLookupProposer } from '../../src/decode/proposers/prompt-lookup.ts';

/** Returns the continuation of the latest earlier occurrence of the last 3 tokens, or else of the last 2. */
function expected(text: readonly number[], length: number): number[] {
  for (const size of [3, 2]) {
    const end = text.slice(-size).join();
    for (let place = text.length - 1; place >= size; place--) {
      if (text.length >= size && text.slice(place - size, place).join() === end)
        return text.slice(place, place + length);
    }
  }
  return [];
}

test('proposes the continuation of the latest repetition, however the text arrived', () => {
  const texts = fc.array(fc.array(fc.integer({ min: 0, max: 3 }), { maxLength: 9 }), { minLength: 1, maxLength: 6 });
  fc.assert(
    fc.property(texts, fc.integer({ min: 0, max: 9 }), (pieces, length) => {
      const [prompt = [], ...steps] = pieces;
      const lookup = new PromptLookupProposer(prompt, 4);
      for (const step of steps) lookup.push(step);
      expect(lookup.propose(length).tokens).toEqual(expected(pieces.flat(), length));
    }),
  );
});

test('is more confident after a longer repetition', () => {
  const confidences = (text: number[]) => new PromptLookupProposer(text, 100).propose(3).confidences;
  expect(confidences([1, 2, 7, 8, 9, 1, 2])).toEqual([0.15, 0.25, 0.35]);
  expect(confidences([0, 1, 2, 3, 7, 8, 0, 1, 2, 3])).toEqual([0.35, 0.45, 0.55]);
  expect(confidences([1, 2, 3])).toEqual([]);
});

test('distinguishes tokens of a large vocabulary', () => {
  const last = 2 ** 17 - 1;
  const lookup = new PromptLookupProposer(
    [last, last, last - 1, 5, last, last, last, 6, last, last, last - 1],
    2 ** 17,
  );
  expect(lookup.propose(1).tokens).toEqual([5]);
});

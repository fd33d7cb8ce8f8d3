import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { PredictedOutputProposer } from '../../src/decode/proposers/predicted-output.ts';

const guess = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];

/** Returns the proposals after each token of a text. */
function proposals(text: readonly number[], length = 3): (readonly number[])[] {
  const prediction = new PredictedOutputProposer(guess);
  const shown = [prediction.propose(length).tokens];
  for (const token of text) {
    prediction.push([token]);
    shown.push(prediction.propose(length).tokens);
  }
  return shown;
}

describe('a prediction', () => {
  test('is followed from its beginning to its end', () => {
    expect(proposals([1, 2])).toEqual([[1, 2, 3], [2, 3, 4], [3, 4, 5]]); // biome-ignore format: rows
    expect(proposals(guess).at(-1)).toEqual([]);
  });

  test('is left where the text departs from it, and resumed later', () => {
    const shown = proposals([1, 2, 99, 98, 6, 7, 8]);
    expect(shown.slice(3, 7)).toEqual([[], [], [], []]);
    expect(shown.at(-1)).toEqual([9, 10, 11]);
  });

  test('is resumed further on rather than earlier', () => {
    const twice = new PredictedOutputProposer([1, 2, 3, 40, 1, 2, 3, 50]);
    twice.push([1, 2, 3, 40, 99, 1, 2, 3]);
    expect(twice.propose(1).tokens).toEqual([50]);
  });

  test('never proposes tokens that it does not contain, however the text arrived', () => {
    const texts = fc.array(fc.integer({ min: 0, max: 4 }), { maxLength: 40 });
    fc.assert(
      fc.property(texts, fc.array(texts, { maxLength: 8 }), (tokens, pieces) => {
        const [one, other] = [new PredictedOutputProposer(tokens), new PredictedOutputProposer(tokens)];
        for (const piece of pieces) {
          one.push(piece);
          for (const token of piece) other.push([token]);
          expect(one.propose(5)).toEqual(other.propose(5));
          expect(`,${tokens.join()},`).toContain(
            `${one
              .propose(5)
              .tokens.map((token) => `,${token}`)
              .join('')}`,
          );
        }
      }),
    );
  });
});

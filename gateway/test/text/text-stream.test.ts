import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { TextStream } from '../../src/text/text-stream.ts';

const bytes = (text: string) => new TextEncoder().encode(text);

/** Returns the output of a stream for `input` in pieces of `size` bytes. */
function feed(input: Uint8Array, size: number, stop: string[] = []): string[] {
  const stream = new TextStream({ bytes: (at) => input.subarray(at, at + size) }, stop);
  const output: string[] = [];
  for (let at = 0; at < input.length; at += size) {
    const { text, finish } = stream.add([at]);
    output.push(text);
    if (finish) return output;
  }
  return [...output, stream.add([], 'length').text];
}

describe('characters', () => {
  test('split over tokens are held back until complete', () => {
    expect(feed(bytes('a😀é'), 1)).toEqual(['a', '', '', '', '😀', '', 'é', '']);
  });

  test('left incomplete at the end become U+FFFD', () => {
    expect(feed(bytes('a😀').subarray(0, 3), 1)).toEqual(['a', '', '', '�']);
  });

  test('that are not UTF-8 become U+FFFD at once', () => {
    expect(feed(Uint8Array.of(0x61, 0xff, 0x62), 1)).toEqual(['a', '�', 'b', '']);
  });

  test('keep a byte order mark', () => {
    expect(feed(bytes('\ufeffa'), 3).join('')).toBe('\ufeffa');
  });
});

describe('stop strings', () => {
  test('hold back only text that may begin one', () => {
    expect(feed(bytes('xabyabc!'), 1, ['abc'])).toEqual(['x', '', '', 'aby', '', '', '']);
  });

  test('end the answer within a step, and count the token that completes them', () => {
    const stream = new TextStream({ bytes: (id) => Uint8Array.of(id) }, ['bc']);
    const step = stream.add([...bytes('abcd')], 'length');
    expect(step).toEqual({ text: 'a', count: 3, finish: 'stop' });
  });

  describe('before min_tokens', () => {
    /** Returns the text of a stream of one-byte tokens in steps of `size` tokens, and the number of tokens. */
    const held = (input: string, minTokens: number, stop: string[], size: number) => {
      const stream = new TextStream({ bytes: (id) => Uint8Array.of(id) }, stop, minTokens);
      const tokens = [...bytes(input)];
      let [text, count] = ['', 0];
      for (let at = 0; at < tokens.length; at += size) {
        const isLast = at + size >= tokens.length;
        const piece = stream.add(tokens.slice(at, at + size), isLast ? 'length' : undefined);
        text += piece.text;
        count += piece.count;
        if (piece.finish) return [text, count, piece.finish];
      }
      return undefined;
    };

    test.each([
      ['are text if they are complete within these tokens', 'xabyabz', 3, ['ab'], ['xaby', 6, 'stop']],
      ['count if a later token completes them', 'xabyabz', 2, ['ab'], ['x', 3, 'stop']],
      ['may overlap one that is text', 'aaab', 2, ['aa'], ['a', 3, 'stop']],
      ['are text in whole answers', 'abab', 4, ['ab', 'b'], ['abab', 4, 'length']],
      ['leave a longer one to be found', 'abcd', 2, ['ab', 'abc'], ['', 3, 'stop']],
    ] as const)('%s', (_, input, minTokens, stop, expected) => {
      for (const size of [1, 2, 3, 9])
        expect([size, held(input, minTokens, [...stop], size)]).toEqual([size, expected]);
    });
  });

  test('that overlap themselves are found', () => {
    expect(feed(bytes('aaab'), 1, ['aab']).join('')).toBe('a');
  });

  test('that are incomplete at the end become text', () => {
    expect(feed(bytes('xab'), 1, ['abc'])).toEqual(['x', '', '', 'ab']);
  });

  test('compete: the first to be complete wins, on a tie the longest', () => {
    expect(feed(bytes('xabcd'), 5, ['abcd', 'bc']).join('')).toBe('xa');
    expect(feed(bytes('xabcd'), 5, ['bc', 'abc']).join('')).toBe('x');
  });

  test('never leak, however the text is split', () => {
    const alphabet = fc.constantFrom('a', 'b', '😀', '😁');
    const text = (min: number, max: number) =>
      fc.array(alphabet, { minLength: min, maxLength: max }).map((list) => list.join(''));
    const property = fc.property(
      text(0, 30),
      fc.array(text(1, 4), { maxLength: 4 }),
      fc.integer({ min: 1, max: 9 }),
      (input, stops, size) => {
        expect(feed(bytes(input), size, stops).join('')).toBe(reference(input, stops));
      },
    );
    fc.assert(property, { numRuns: 300 });
  });
});

/** Returns the text before the stop string that is complete first. */
function reference(text: string, stops: string[]): string {
  for (let end = 1; end <= text.length; end++) {
    const found = stops.filter((stop) => text.slice(0, end).endsWith(stop)).map((stop) => stop.length);
    if (found.length > 0) return text.slice(0, end - Math.max(...found));
  }
  return text;
}

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { accept } from '../../src/sampling/accept.ts';
import { uniforms } from '../../src/sampling/uniforms.ts';
import { pick, shape } from '../../src/testing/reference-sampler.ts';

const tokens = (length: number) => fc.array(fc.nat(3), { minLength: length, maxLength: length });
const draftAndPicks = fc.nat(8).chain((n) => fc.tuple(tokens(n), tokens(n + 1)));

describe('accept', () => {
  test.each([
    ['all right: the target adds one', [1, 2, 3], [1, 2, 3, 4], 3, [1, 2, 3, 4]],
    ['wrong in the middle: what follows is dropped', [1, 9, 3], [1, 2, 3, 4], 1, [1, 2]],
    ['wrong at once: plain decoding', [9, 2, 3], [1, 2, 3, 4], 0, [1]],
    ['nothing drafted: plain decoding', [], [1], 0, [1]],
  ])('%s', (_, draft, picks, accepted, committed) => {
    expect(accept(draft, picks)).toEqual({ accepted, tokens: committed });
  });

  test('takes typed arrays', () => {
    expect(accept(Int32Array.of(1, 2), Int32Array.of(1, 3, 5))).toEqual({ accepted: 1, tokens: [1, 3] });
  });

  test.each([
    [[1], [1]],
    [[], []],
    [[1], [1, 2, 3]],
  ])('rejects draft %j with picks %j', (draft, picks) => {
    const [expected, drafted] = [draft.length + 1, draft.length];
    const message = `the number of picks must be ${expected} for ${drafted} draft tokens, got ${picks.length}`;
    expect(() => accept(draft, picks)).toThrow(message);
  });

  test('commits the longest prefix on which both agree and one token of the target', () => {
    fc.assert(
      fc.property(draftAndPicks, ([draft, picks]) => {
        const { accepted, tokens } = accept(draft, picks);
        expect(tokens).toEqual(picks.slice(0, accepted + 1));
        expect(draft.slice(0, accepted)).toEqual(picks.slice(0, accepted));
        if (accepted < draft.length) expect(draft[accepted]).not.toBe(picks[accepted]);
      }),
    );
  });

  test('decoding with any drafts commits exactly what plain decoding samples', () => {
    const length = 24;
    const drafts = fc.array(fc.array(fc.nat(3), { maxLength: 5 }), { minLength: length, maxLength: length });
    fc.assert(
      fc.property(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), drafts, (seed, drafted) => {
        const plain: number[] = [];
        while (plain.length < length) plain.push(targetPick(seed, plain));

        const committed: number[] = [];
        for (const draft of drafted) {
          const picks = [...draft, 0].map((_, k) => targetPick(seed, [...committed, ...draft.slice(0, k)]));
          committed.push(...accept(draft, picks).tokens);
        }
        expect(committed.slice(0, length)).toEqual(plain);
      }),
    );
  });
});

/** Returns v_k of a small target over 4 tokens, whose distribution depends on the last two tokens. */
function targetPick(seed: bigint, context: readonly number[]): number {
  const [a = 0, b = 0] = context.slice(-2);
  const logits = Float32Array.from({ length: 4 }, (_, id) => ((id * 7 + a * 5 + b * 3) % 4) / 2);
  return pick(uniforms(seed, context.length, 1)[0] as number, shape(logits, { temperature: 0.8, topK: 3, topP: 0.95 }));
}

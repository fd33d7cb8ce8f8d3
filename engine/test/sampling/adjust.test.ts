import { type AdjustParams, adjustParams, noAdjustment } from '@ptp/protocol/token-adjustments';
import { describe, expect, it } from 'vitest';
import { Adjuster } from '../../src/sampling/adjust.ts';
import { adjusted, shape } from '../../src/testing/reference-sampler.ts';

const VOCABULARY = 8;
const logits = Float32Array.of(2, -1, 0.5, 0, 3, -2, 1, 0.25);
/** Returns the adjusted logits after a prompt and generated tokens, and after each token of a draft. */
function rows(params: Partial<AdjustParams>, prompt: number[], generated: number[], draft: number[] = []): number[][] {
  const adjuster = new Adjuster({ ...noAdjustment, ...params }, prompt, generated);
  return adjuster.along(draft).map((row) => [...adjusted(logits, row)]);
}

describe('adjustments', () => {
  it('are absent by default', () => {
    expect(adjustParams({}, VOCABULARY)).toBeUndefined();
    expect(adjustParams({ repetitionPenalty: 1, logitBias: new Map(), heldBack: [3] }, VOCABULARY)).toBeUndefined();
    expect(rows({}, [1], [2])).toEqual([[...logits]]);
  });

  it('add a bias', () => {
    expect(rows({ logitBias: new Map([[1, 5], [4, -100]]) }, [], [])).toEqual([[2, 4, 0.5, 0, -97, -2, 1, 0.25]]); // biome-ignore format: pairs
  });

  it('count generated tokens, not the prompt, for presence and frequency', () => {
    const penalties = { presencePenalty: 0.5, frequencyPenalty: 0.25 };
    expect(rows(penalties, [0, 0], [6, 6, 4])).toEqual([[2, -1, 0.5, 0, 2.25, -2, 0, 0.25]]);
  });

  it('divide or multiply the logits of all earlier tokens, for repetition', () => {
    expect(rows({ repetitionPenalty: 2 }, [0, 1], [4])).toEqual([[1, -2, 0.5, 0, 1.5, -2, 1, 0.25]]);
  });

  it('stay finite, however small a penalty is', () => {
    const params = adjustParams({ repetitionPenalty: 1e-45 }, VOCABULARY);
    expect(
      rows(params ?? {}, [0, 3], [])
        .flat()
        .every(Number.isFinite),
    ).toBe(true);
  });

  it('follow a draft and forget it', () => {
    const params = { ...noAdjustment, frequencyPenalty: 1 };
    const adjuster = new Adjuster(params, [], [4]);
    const along = adjuster.along([4, 6]).map((row) => [...adjusted(logits, row)]);
    expect(along.map((row) => [row[4], row[6]])).toEqual([[2, 1], [1, 1], [1, 0]]); // biome-ignore format: rows
    const again = new Adjuster(params, [], [4]).along([])[0];
    expect(adjuster.along([])[0]).toEqual(again);
    adjuster.push([4, 6]);
    expect(adjuster.along([])[0]).toEqual(new Adjuster(params, [], [4, 4, 6]).along([])[0]);
  });

  it('hold tokens back until a position, also along a draft', () => {
    const held = rows({ heldBack: [4], heldBackUntil: 3 }, [], [1], [2, 2, 2]).map((row) => row[4]);
    expect(held).toEqual([Number.NEGATIVE_INFINITY, Number.NEGATIVE_INFINITY, 3, 3]);
  });

  it.each([
    [{ logitBias: new Map([[8, 1]]) }, 'logit_bias', 'token ids in [0, 7], got 8'],
    [{ logitBias: new Map([[1, 101]]) }, 'logit_bias[1]', 'in [-100, 100], got 101'],
    [{ presencePenalty: 2.5 }, 'presence_penalty', 'in [-2, 2], got 2.5'],
    [{ frequencyPenalty: -3 }, 'frequency_penalty', 'in [-2, 2], got -3'],
    [{ repetitionPenalty: 0 }, 'repetition_penalty', 'in (0, 10], got 0'],
  ])('reject %j', (given, field, message) => {
    expect(() => adjustParams(given, VOCABULARY)).toThrow(
      `\`${field}\` must be ${message.startsWith('token') ? 'of ' : ''}${message}`,
    );
  });
});

describe('min-p', () => {
  const off = { temperature: 1, topK: 0, topP: 1 };
  const logOf = (...p: number[]) => Float32Array.from(p, Math.log);

  it('keeps tokens that are likely relative to the most probable one', () => {
    expect(shape(logOf(0.5, 0.3, 0.15, 0.05), { ...off, minP: 0.31 }).kept).toEqual([0, 1]);
    expect(shape(logOf(0.5, 0.3, 0.15, 0.05), { ...off, minP: 1 }).kept).toEqual([0]);
  });

  it('comes after temperature and before top-p', () => {
    // At temperature 2 the third token is sqrt(0.3) times as likely as the first.
    expect(shape(logOf(0.5, 0.3, 0.15, 0.05), { ...off, temperature: 2, minP: 0.5 }).kept).toEqual([0, 1, 2]);
    // Among the remaining two tokens the first has probability 0.625.
    expect(shape(logOf(0.5, 0.3, 0.15, 0.05), { ...off, minP: 0.5, topP: 0.6 }).kept).toEqual([0]);
  });
});

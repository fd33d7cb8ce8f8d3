import type { SamplingParams } from '@ptp/protocol/sampling-params';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Adjustment, allowOnly, allowToken } from '../../src/sampling/adjust.ts';
import { randomTokens } from '../../src/sampling/uniforms.ts';
import type { TargetEngine, TargetOutput, TargetSlot } from '../../src/types.ts';
import { type Opened, onNewSequence, stopWorkers, targets } from './engines.ts';

const greedy: SamplingParams = { temperature: 0, topK: 0, topP: 1 };
const nucleus: SamplingParams = { temperature: 0.8, topK: 20, topP: 0.9 };
const plain: SamplingParams = { temperature: 1, topK: 0, topP: 1 };
const settings: SamplingParams[] = [greedy, nucleus, plain, { temperature: 1.4, topK: 100, topP: 0.99, minP: 0.01 }];
const source = { seed: 7n, offset: 0 };

/** Returns `count` tokens, determined by the seed alone. */
const someTokens = (count: number, seed = 1n) => randomTokens(seed, count, 257);
const tokens = someTokens(60);

afterAll(stopWorkers, 60_000);

describe.each(targets.filter(({ missing }) => !missing))(
  'the target of $name',
  ({ isReal, decimals, scales = true, open }) => {
    let opened: Opened<TargetEngine>;
    let engine: TargetEngine;
    beforeAll(async () => {
      opened = await open();
      engine = opened.engine;
    }, 300_000);
    afterAll(() => dispose(opened));

    async function dispose({ engine, release }: Opened<TargetEngine>): Promise<void> {
      await engine.dispose();
      await release?.();
    }

    async function runOne(slot: TargetSlot): Promise<TargetOutput> {
      return (await engine.run([slot])).outputs[0] as TargetOutput;
    }

    /** Runs one slot on a new sequence. */
    const runAlone = (slot: Omit<TargetSlot, 'sequence' | 'at'>) =>
      onNewSequence(engine, (sequence) => runOne({ sequence, at: 0, uniforms: source, ...slot }));

    /** Runs tokens in chunks with the given lengths in turn. */
    const read = (text: readonly number[], chunks: readonly number[], sampling: SamplingParams) =>
      onNewSequence(engine, async (sequence) => {
        const parts: TargetOutput[] = [];
        for (let at = 0, turn = 0; at < text.length; turn++) {
          const part = text.slice(at, at + (chunks[turn % chunks.length] as number));
          parts.push(await runOne({ sequence, at, tokens: part, sampling, uniforms: source }));
          at += part.length;
        }
        return joined(parts);
      });

    /** Compares bits, unless the engine is not batch-invariant. Rounding may then decide a pick between two tokens. */
    function expectSame(actual: Joined, expected: Joined): void {
      if (decimals === undefined) expect(actual).toEqual(expected);
      const same = [...expected.picks.keys()].filter((i) => actual.picks[i] === expected.picks[i]);
      expect(same.length).toBeGreaterThan(0.9 * expected.picks.length);
      for (const i of same) {
        expect(actual.logProbabilities[i]).toBeCloseTo(expected.logProbabilities[i] as number, decimals);
      }
    }

    describe('runs', () => {
      test.each([[[1]], [[2]], [[3]], [[5]], [[8]], [[2, 7, 1, 16, 5]]])(
        'give the same for a text read in chunks of %j as for one read at once',
        async (chunks) => {
          for (const sampling of settings) {
            expectSame(await read(tokens, chunks, sampling), await read(tokens, [60], sampling));
          }
        },
        60_000,
      );

      test('with several ragged sequences give each the same as alone', async () => {
        const texts = [3n, 4n, 5n, 6n].map((seed) => someTokens(60, seed)).slice(0, engine.info.maxSlots);
        const samplings = texts.map((_, i) => settings[i % settings.length] as SamplingParams);
        const alone = [];
        for (const [i, text] of texts.entries()) alone.push(await read(text, [60], samplings[i] as SamplingParams));
        const sequences = texts.map(() => engine.open());
        const ends = texts.map(() => 0);
        const parts: TargetOutput[][] = texts.map(() => []);
        for (let step = 0; ends.some((end) => end < 60); step++) {
          const slots = sequences.flatMap((sequence, i) => {
            const at = ends[i] as number;
            const part = texts[i]?.slice(at, at + 1 + ((step * 3 + i * 5) % 7)) ?? [];
            return part.length ? [{ i, sequence, at, tokens: part, sampling: samplings[i], uniforms: source }] : [];
          });
          const { outputs } = await engine.run(slots as (TargetSlot & { i: number })[]);
          for (const [k, { i, at, tokens: part }] of slots.entries()) {
            parts[i]?.push(outputs[k] as TargetOutput);
            ends[i] = at + part.length;
          }
        }
        for (const sequence of sequences) engine.close(sequence);
        for (const [i, expected] of alone.entries()) expectSame(joined(parts[i] as TargetOutput[]), expected);
      });

      test('do not use rows that were rolled back', () =>
        onNewSequence(engine, async (sequence) => {
          await engine.run([{ sequence, at: 0, tokens: tokens.slice(0, 20) }]);
          await engine.run([{ sequence, at: 20, tokens: someTokens(10, 9n) }]);
          const rest = { sequence, at: 20, tokens: tokens.slice(20), sampling: nucleus, uniforms: source };
          const { picks, logProbabilities } = await read(tokens, [60], nucleus);
          const expected = { picks: picks.slice(20), logProbabilities: logProbabilities.slice(20) };
          expectSame(joined([await runOne(rest)]), expected);
        }));

      test('pick nothing for a slot without sampling', async () => {
        const [reading, writing] = [engine.open(), engine.open()];
        const picking = { sampling: greedy, uniforms: source };
        const { outputs, runMicros } = await engine.run([
          { sequence: reading, at: 0, tokens },
          { sequence: writing, at: 0, tokens: [5], ...picking },
        ]);
        for (const sequence of [reading, writing]) engine.close(sequence);
        expect(outputs.map(({ picks, logProbabilities }) => [picks.length, logProbabilities.length])).toEqual([
          [0, 0],
          [1, 1],
        ]);
        expect(outputs[1]?.logProbabilities[0]).toBeLessThan(0);
        expect(runMicros).toBeGreaterThanOrEqual(isReal ? 1 : 0);
      });

      test('pick by seed and position, unless sampling is greedy', async () => {
        const picks = async (slot: Partial<TargetSlot>) => {
          return [...(await runAlone({ tokens, sampling: plain, ...slot })).picks];
        };
        const own = await picks({});
        expect(await picks({ uniforms: { seed: 7n, offset: 1 } })).not.toEqual(own);
        expect(await picks({ uniforms: { seed: 8n, offset: 0 } })).not.toEqual(own);
        expect(await picks({})).toEqual(own);
        // Tokens of a prompt have negative positions.
        const scored = await picks({ sampling: greedy, uniforms: { seed: 8n, offset: -60 } });
        expect(scored).toEqual(await picks({ sampling: greedy }));
      });

      test('fill the context to the last token, but not further', () =>
        onNewSequence(engine, async (sequence) => {
          const { contextLength } = engine.info;
          for (let at = 0; at < contextLength - 1; at += 100) {
            await engine.run([{ sequence, at, tokens: someTokens(Math.min(100, contextLength - 1 - at)) }]);
          }
          const last = { sequence, at: contextLength - 1, sampling: greedy, uniforms: source };
          expect((await runOne({ ...last, tokens: [5] })).picks).toHaveLength(1);
          await expect(engine.run([{ ...last, tokens: [5, 6] }])).rejects.toMatchObject({ code: 'out_of_range' });
        }));

      test('are rejected if they are invalid, naming the slot and the limit', () =>
        onNewSequence(engine, async (sequence) => {
          const { maxSlots, vocabulary } = engine.info;
          const rejected = (...slots: TargetSlot[]) =>
            engine.run(slots).then(
              () => 'no error',
              (error) => `${error.code}: ${error.message}`,
            );
          await engine.run([{ sequence, at: 0, tokens: [1, 2, 3] }]);
          expect(await rejected()).toBe(`invalid_argument: a run must have 1 to ${maxSlots} slots, got 0`);
          expect(await rejected({ sequence: 999, at: 0, tokens: [1] })).toBe(
            'not_found: slot 0: sequence 999 is not open',
          );
          const slot = { sequence, at: 3, tokens: [1] };
          expect(await rejected({ ...slot, at: 4 })).toBe(
            'invalid_argument: slot 0: `at` must be an integer in [0, 3], got 4',
          );
          const limit = `must be an integer in [0, ${vocabulary - 1}], got ${vocabulary}`;
          expect(await rejected({ ...slot, tokens: [vocabulary] })).toContain(`each token ${limit}`);
          expect(await rejected({ ...slot, tokens: [] })).toContain('the number of tokens must be at least 1, got 0');
          expect(await rejected(slot, slot)).toContain('slot 1: the sequence must be different in each slot');
          const picking = { ...slot, sampling: greedy };
          expect(await rejected(picking)).toContain('`uniforms` must be present if the slot has `sampling`');
          expect(await rejected({ ...picking, uniforms: { seed: 2n ** 64n, offset: 0 } })).toContain(
            '`seed` must be in [0, 2^64), got 18446744073709551616',
          );
          expect(await rejected({ ...picking, uniforms: { seed: 0n, offset: 0.5 } })).toContain(
            '`offset` must be an integer in [-2147483648, 2147483647], got 0.5',
          );
        }));
    });

    describe.skipIf(!isReal)('sampling', () => {
      const unchanged = { ...allowOnly(new Uint8Array()), allowed: undefined };
      const adjustment = (change: Partial<Adjustment>) => [{ ...unchanged, ...change } as Adjustment];
      const after = (slot: Partial<TargetSlot>) => runAlone({ tokens: [5], sampling: greedy, ...slot });

      test('returns the most probable tokens, which do not depend on the sampling', async () => {
        const { topIds, topLogProbabilities: tops = [] } = await runAlone({ tokens, sampling: nucleus, topCount: 3 });
        const { picks, logProbabilities } = await runAlone({ tokens, sampling: greedy });
        expect([topIds?.length, tops.length]).toEqual([180, 180]);
        for (const [i, pick] of picks.entries()) {
          expect(topIds?.[3 * i]).toBe(pick);
          expect(tops[3 * i]).toBeCloseTo(logProbabilities[i] as number, 4);
          expect(tops[3 * i]).toBeGreaterThanOrEqual(tops[3 * i + 1] as number);
          expect(tops[3 * i + 1]).toBeGreaterThanOrEqual(tops[3 * i + 2] as number);
        }
      });

      test('adds biases to logits, and scales them', async () => {
        const { topIds = [], topLogProbabilities: tops = [] } = await after({ topCount: 2 });
        const [best, second] = topIds as Int32Array & [number, number];
        const gap = (tops[0] as number) - (tops[1] as number);
        const pick = async (change: Partial<Adjustment>) => (await after({ adjust: adjustment(change) })).picks[0];
        expect(await pick({})).toBe(best);
        const banned = { biased: Int32Array.of(best), biases: Float32Array.of(Number.NEGATIVE_INFINITY) };
        expect(await pick(banned)).toBe(second);
        expect(await pick({ biased: Int32Array.of(second), biases: Float32Array.of(gap + 0.01) })).toBe(second);
        expect(await pick({ biased: Int32Array.of(second), biases: Float32Array.of(gap - 0.01) })).toBe(best);
        // A large scale moves a positive logit to 0, and a negative one far down, so another token is the best.
        const scaled = pick({ scaled: Int32Array.of(best), scale: 1e6 });
        if (scales) expect(await scaled).not.toBe(best);
        else await expect(scaled).rejects.toMatchObject({ code: 'invalid_argument', field: 'repetition_penalty' });
      });

      test('picks only tokens that a mask allows, and reports their probabilities without it', async () => {
        const scored = tokens.map((token) => allowToken(token, engine.info.vocabulary));
        const { picks, logProbabilities } = await runAlone({ tokens, sampling: greedy, adjust: scored });
        expect([...picks]).toEqual(tokens);
        expect(logProbabilities.every((value) => value < 0 && Number.isFinite(value))).toBe(true);
        const even = allowOnly(new Uint8Array(Math.ceil(engine.info.vocabulary / 8)).fill(0b01010101));
        const sampled = await runAlone({ tokens, sampling: { ...nucleus, topK: 5 }, adjust: tokens.map(() => even) });
        expect(sampled.picks.every((pick) => pick % 2 === 0)).toBe(true);
      });
    });
  },
);

type Joined = ReturnType<typeof joined>;
const joined = (parts: readonly TargetOutput[]) => ({
  picks: parts.flatMap(({ picks }) => [...picks]),
  logProbabilities: parts.flatMap(({ logProbabilities }) => [...logProbabilities]),
});

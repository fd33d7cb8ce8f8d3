import type { SamplingParams } from '@ptp/protocol/sampling-params';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { randomTokens } from '../../src/sampling/uniforms.ts';
import type { BranchRequest, DraftEngine, DraftedBranch } from '../../src/types.ts';
import { drafters, type Opened, onNewSequence, stopWorkers } from './engines.ts';

const greedy: SamplingParams = { temperature: 0, topK: 0, topP: 1 };
const nucleus: SamplingParams = { temperature: 0.8, topK: 20, topP: 0.9 };
const source = { seed: 7n, offset: 0 };
const tokens = randomTokens(1n, 40, 257);
const picking = { sampling: nucleus, uniforms: source };

afterAll(stopWorkers, 60_000);

describe.each(drafters.filter(({ missing }) => !missing))('the drafter of $name', ({ isReal, open }) => {
  let opened: Opened<DraftEngine>;
  let engine: DraftEngine;
  beforeAll(async () => {
    opened = await open();
    engine = opened.engine;
  }, 300_000);
  afterAll(async () => {
    await engine.dispose();
    await opened.release?.();
  });

  /** Drafts `length` tokens on a new sequence that contains only `context`. */
  const draftAlone = (context: readonly number[], length: number, sampling = nucleus, from = source) =>
    onNewSequence(engine, async (sequence) => {
      const branches = [{ visible: context.length, length }];
      const slot = { sequence, at: 0, tokens: context, sampling, uniforms: from, branches };
      return (await engine.run([slot])).outputs[0]?.branches[0] as DraftedBranch;
    });

  test('drafts each of several branches as if it were the only one', async () => {
    const sequence = engine.open();
    await engine.run([{ sequence, at: 0, tokens: tokens.slice(0, 30), ...picking, branches: [] }]);
    const visible = [30, 31, 34, 35];
    const branches = visible.map((v, i) => ({ visible: v, length: 8 - i }));
    const slot = { sequence, at: 30, tokens: tokens.slice(30, 35), ...picking, branches };
    const others = [engine.open(), engine.open()].map((other) => ({ ...slot, sequence: other, at: 0, branches: [] }));
    for (const slots of [[slot], [...others, slot]]) {
      const drafted = (await engine.run(slots)).outputs.at(-1)?.branches ?? [];
      expect(drafted).toHaveLength(4);
      for (const [i, { tokens: ids, confidences }] of drafted.entries()) {
        const alone = await draftAlone(tokens.slice(0, visible[i]), 8 - i);
        expect(ids).toEqual(alone.tokens);
        for (const [k, c] of confidences.entries()) expect(c).toBeCloseTo(alone.confidences[k] as number, 4);
      }
    }
    for (const { sequence: other } of [slot, ...others]) engine.close(other);
  });

  test('drafts differently with other uniforms or sampling, and a longer branch starts with the shorter one', async () => {
    const { tokens: drafted, confidences } = await draftAlone(tokens, 8);
    expect(drafted).toHaveLength(8);
    expect([...confidences].every((c) => c > 0 && c <= 1)).toBe(true);
    expect((await draftAlone(tokens, 3)).tokens).toEqual(drafted.slice(0, 3));
    expect((await draftAlone(tokens, 8, nucleus, { seed: 8n, offset: 0 })).tokens).not.toEqual(drafted);
    expect((await draftAlone(tokens, 8, nucleus, { seed: 7n, offset: 1 })).tokens).not.toEqual(drafted);
    expect((await draftAlone(tokens, 8, greedy)).tokens).not.toEqual(drafted);
  });

  test('drafts after a rollback as if the dropped rows had never existed', () =>
    onNewSequence(engine, async (sequence) => {
      const slot = { sequence, ...picking, branches: [] as BranchRequest[] };
      await engine.run([{ ...slot, at: 0, tokens: tokens.slice(0, 20) }]);
      await engine.run([{ ...slot, at: 20, tokens: [1, 2, 3] }]);
      const again = { ...slot, at: 19, tokens: tokens.slice(19, 20), branches: [{ visible: 20, length: 8 }] };
      const { outputs } = await engine.run([again]);
      expect(outputs[0]?.branches[0]?.tokens).toEqual((await draftAlone(tokens.slice(0, 20), 8)).tokens);
    }));

  test('rejects branches that see too many rows or are too long', () =>
    onNewSequence(engine, async (sequence) => {
      const slot = { sequence, at: 0, tokens: [1, 2], ...picking };
      await expect(engine.run([{ ...slot, branches: [{ visible: 3, length: 1 }] }])).rejects.toThrow(
        '`visible` must be an integer in [1, 2], got 3',
      );
      const tooLong = engine.maxBranchLength + 1;
      await expect(engine.run([{ ...slot, branches: [{ visible: 2, length: tooLong }] }])).rejects.toThrow(
        `the branch length must be an integer in [1, ${engine.maxBranchLength}], got ${tooLong}`,
      );
      await expect(engine.run([{ ...slot, branches: [], check: { block: 0, length: 1 } }])).rejects.toThrow(
        '`check` must be absent for a drafter that does not check blocks',
      );
    }));

  test.skipIf(!isReal).each([nucleus, greedy])('does not start a branch with its excluded token: %j', (sampling) =>
    onNewSequence(engine, async (sequence) => {
      const branch = { visible: tokens.length, length: 8 };
      const run = async (excluded?: number) => {
        const changed = { ...branch, ...(excluded !== undefined && { excluded }) };
        const branches = [branch, changed, { ...branch, visible: tokens.length - 1 }];
        const slot = { sequence, at: 0, tokens, sampling, uniforms: source, branches };
        return (await engine.run([slot])).outputs[0]?.branches.map((drafted) => drafted.tokens) as Int32Array[];
      };
      const [first, same, other] = await run();
      expect(same).toEqual(first);
      const [unchanged, without, unmoved] = await run(first?.[0]);
      expect(without?.[0]).not.toBe(first?.[0]);
      expect([unchanged, unmoved]).toEqual([first, other]);
    }),
  );

  test('knows its longest branch and its yield', () => {
    expect(engine.maxBranchLength).toBe(8);
    expect(engine.yieldCurve).toHaveLength(9);
    expect(engine.yieldCurveAfterMiss).toHaveLength(9);
  });
});

import { fileURLToPath } from 'node:url';
import type { Worker } from 'node:worker_threads';
import type { SamplingParams } from '@ptp/protocol/sampling-params';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openDraftEngine, openTargetEngine } from '../src/onnx/engine.ts';
import { accept } from '../src/sampling/accept.ts';
import { uniforms } from '../src/sampling/uniforms.ts';
import type { DraftEngine, SequenceId, TargetEngine, TargetOutput } from '../src/types.ts';

const dir = fileURLToPath(new URL('../../test/models/tiny', import.meta.url));
const greedy: SamplingParams = { temperature: 0, topK: 0, topP: 1 };
const nucleus: SamplingParams = { temperature: 0.8, topK: 20, topP: 0.9 };
const settings: SamplingParams[] = [
  greedy,
  { temperature: 1, topK: 0, topP: 1 },
  nucleus,
  { temperature: 1.4, topK: 100, topP: 0.99 },
];

/** Returns `count` tokens of the tiny vocabulary, determined by the seed alone. */
const someTokens = (count: number, seed = 1n) => Array.from(uniforms(seed, 0, count), (u) => Math.floor(u * 257));
const source = { seed: 7n, offset: 0 };

let target: TargetEngine;
let drafter: DraftEngine;
beforeAll(async () => {
  [target, drafter] = await Promise.all([openTargetEngine({ dir }), openDraftEngine({ dir })]);
});
afterAll(() => Promise.all([target.dispose(), drafter.dispose()]));

/**
 * Runs tokens in chunks with the given lengths in turn. Index i of the result belongs to the position after tokens[i].
 */
async function read(tokens: number[], chunks: number[], sampling: SamplingParams, engine = target) {
  const sequence = engine.open();
  const parts: TargetOutput[] = [];
  for (let at = 0, turn = 0; at < tokens.length; turn++) {
    const length = chunks[turn % chunks.length] as number;
    const slot = { sequence, at, tokens: tokens.slice(at, at + length), sampling, uniforms: source };
    const { outputs } = await engine.run([slot]);
    parts.push(outputs[0] as TargetOutput);
    at += length;
  }
  engine.close(sequence);
  return joined(parts);
}

const joined = (parts: TargetOutput[]) => ({
  picks: parts.flatMap(({ picks }) => [...picks]),
  logProbabilities: parts.flatMap(({ logProbabilities }) => [...logProbabilities]),
});

describe('the ONNX target', () => {
  const tokens = someTokens(60);

  test.each([[[1]], [[2]], [[3]], [[5]], [[8]], [[2, 7, 1, 16, 5]]])(
    'gives the same bits for a text read in chunks of %j as for one read at once',
    async (chunks) => {
      for (const sampling of settings) {
        expect(await read(tokens, chunks, sampling)).toEqual(await read(tokens, [60], sampling));
      }
    },
  );

  test('gives four ragged sequences in one run the same bits as each alone', async () => {
    const texts = [3n, 4n, 5n, 6n].map((seed) => someTokens(60, seed));
    const alone = await Promise.all(texts.map((text, i) => read(text, [60], settings[i] as SamplingParams)));
    const sequences = texts.map(() => target.open());
    const ends = texts.map(() => 0);
    const parts: TargetOutput[][] = texts.map(() => []);
    for (let step = 0; ends.some((end) => end < 60); step++) {
      const slots = sequences.flatMap((sequence, i) => {
        const at = ends[i] as number;
        const part = texts[i]?.slice(at, at + 1 + ((step * 3 + i * 5) % 7)) ?? [];
        const sampling = settings[i] as SamplingParams;
        return part.length ? [{ i, sequence, at, tokens: part, sampling, uniforms: source }] : [];
      });
      const { outputs } = await target.run(slots);
      for (const [k, { i, at, tokens: part }] of slots.entries()) {
        parts[i]?.push(outputs[k] as TargetOutput);
        ends[i] = at + part.length;
      }
    }
    for (const sequence of sequences) target.close(sequence);
    expect(parts.map(joined)).toEqual(alone);
  });

  test('does not use rows that were rolled back', async () => {
    const sequence = target.open();
    await target.run([{ sequence, at: 0, tokens: tokens.slice(0, 20) }]);
    await target.run([{ sequence, at: 20, tokens: someTokens(10, 9n) }]);
    const rest = { sequence, at: 20, tokens: tokens.slice(20), sampling: nucleus, uniforms: source };
    const { outputs } = await target.run([rest]);
    target.close(sequence);
    const expected = await read(tokens, [60], nucleus);
    expect([...(outputs[0]?.picks ?? [])]).toEqual(expected.picks.slice(20));
  });

  test('picks nothing for a slot without sampling', async () => {
    const [reading, writing] = [target.open(), target.open()];
    const { outputs, runMicros } = await target.run([
      { sequence: reading, at: 0, tokens },
      { sequence: writing, at: 0, tokens: tokens.slice(0, 1), sampling: greedy, uniforms: source },
    ]);
    for (const sequence of [reading, writing]) target.close(sequence);
    expect(outputs.map(({ picks, logProbabilities }) => [picks.length, logProbabilities.length])).toEqual([
      [0, 0],
      [1, 1],
    ]);
    expect(outputs[1]?.logProbabilities[0]).toBeLessThan(0);
    expect(runMicros).toBeGreaterThan(0);
  });

  test('fills its context to the last token, and rejects one more', async () => {
    const { contextLength } = target.info;
    const sequence = target.open();
    await target.run([{ sequence, at: 0, tokens: someTokens(contextLength - 1) }]);
    const last = { sequence, at: contextLength - 1, sampling: greedy, uniforms: source };
    const { outputs } = await target.run([{ ...last, tokens: [5] }]);
    expect(outputs[0]?.picks).toHaveLength(1);
    await expect(target.run([{ ...last, tokens: [5, 6] }])).rejects.toMatchObject({ code: 'out_of_range' });
    target.close(sequence);
  });

  test('counts sequences and bytes, and frees both', async () => {
    const engine = await openTargetEngine({ dir });
    const sequences = [engine.open(), engine.open()] as [SequenceId, SequenceId];
    expect(engine.usage()).toEqual({ sequences: 2, cacheBytes: 0 });
    await engine.run([{ sequence: sequences[0], at: 0, tokens: someTokens(100) }]);
    const { bytesPerToken } = engine.info;
    expect(engine.usage().cacheBytes).toBeGreaterThanOrEqual(100 * bytesPerToken);
    expect(engine.usage().cacheBytes).toBeLessThanOrEqual(200 * bytesPerToken);
    for (const sequence of sequences) engine.close(sequence);
    engine.close(12345);
    expect(engine.usage()).toEqual({ sequences: 0, cacheBytes: 0 });
    await engine.dispose();
  });

  test('rejects an invalid run, naming the slot and the limit', async () => {
    const sequence = target.open();
    await target.run([{ sequence, at: 0, tokens: [1, 2, 3] }]);
    const refused = (slots: Parameters<TargetEngine['run']>[0]) =>
      target.run(slots).then(
        () => 'no error',
        (error) => `${error.code}: ${error.message}`,
      );
    expect(await refused([])).toBe('invalid_argument: a run must have 1 to 4 slots, got 0');
    expect(await refused([{ sequence: 999, at: 0, tokens: [1] }])).toBe('not_found: slot 0: sequence 999 is not open');
    expect(await refused([{ sequence, at: 4, tokens: [1] }])).toBe(
      'invalid_argument: slot 0: `at` must be an integer in [0, 3], got 4',
    );
    expect(await refused([{ sequence, at: 3, tokens: [257] }])).toBe(
      'invalid_argument: slot 0: each token must be an integer in [0, 256], got 257',
    );
    expect(await refused([{ sequence, at: 3, tokens: [] }])).toContain(
      'the number of tokens must be at least 1, got 0',
    );
    const picking = { sequence, at: 3, tokens: [1], sampling: greedy };
    expect(await refused([picking])).toContain('`uniforms` must be present if the slot has `sampling`, got undefined');
    expect(await refused([{ ...picking, uniforms: { seed: 2n ** 64n, offset: 0 } }])).toContain(
      '`seed` must be in [0, 2^64), got 18446744073709551616',
    );
    expect(await refused([{ ...picking, uniforms: { seed: 0n, offset: 0.5 } }])).toContain(
      '`offset` must be an integer in [-2147483648, 2147483647], got 0.5',
    );
    const twice = { sequence, at: 3, tokens: [1] };
    expect(await refused([twice, twice])).toContain('slot 1: the sequence must be different in each slot');
    target.close(sequence);
  });

  test('keeps serving after a failed run', async () => {
    const [bad, good] = [target.open(), target.open()];
    const broken = { temperature: 1, topK: 0.5, topP: 1 };
    const runs = await Promise.allSettled([
      target.run([{ sequence: bad, at: 0, tokens: [1], sampling: broken, uniforms: source }]),
      target.run([{ sequence: good, at: 0, tokens: [1], sampling: greedy, uniforms: source }]),
    ]);
    expect(runs).toMatchObject([{ status: 'rejected', reason: { code: 'internal' } }, { status: 'fulfilled' }]);
    await target.run([{ sequence: bad, at: 0, tokens: [1] }]);
    for (const sequence of [bad, good]) target.close(sequence);
  });

  test('once stopped, fails runs in flight and later ones', async () => {
    const engine = await openTargetEngine({ dir });
    const sequence = engine.open();
    const underWay = expect(engine.run([{ sequence, at: 0, tokens: [1] }])).rejects.toMatchObject({
      code: 'unavailable',
    });
    await engine.dispose();
    await underWay;
    expect(() => engine.open()).toThrow('stopped');
    await engine.dispose();
  });

  test('fails everything with `unavailable` when its thread dies', async () => {
    const engine = await openTargetEngine({ dir });
    const sequence = engine.open();
    const run = expect(engine.run([{ sequence, at: 0, tokens: [1] }])).rejects.toMatchObject({ code: 'unavailable' });
    await (Reflect.get(engine, 'worker') as Worker).terminate();
    await run;
    await expect(engine.run([{ sequence, at: 0, tokens: [1] }])).rejects.toThrow();
    expect(engine.usage()).toEqual({ sequences: 0, cacheBytes: 0 });
    await engine.dispose();
  });
});

describe('the ONNX drafter', () => {
  const tokens = someTokens(40);

  /** Drafts from a new sequence that contains only `context`. */
  async function draftAlone(context: number[], length: number, sampling = nucleus, uniforms = source) {
    const sequence = drafter.open();
    const branches = [{ visible: context.length, length }];
    const { outputs } = await drafter.run([{ sequence, at: 0, tokens: context, sampling, uniforms, branches }]);
    drafter.close(sequence);
    return outputs[0]?.branches[0] as { tokens: Int32Array; confidences: Float32Array };
  }

  test('drafts each of several branches as if it were the only one', async () => {
    const sequence = drafter.open();
    const picking = { sampling: nucleus, uniforms: source };
    await drafter.run([{ sequence, at: 0, tokens: tokens.slice(0, 30), ...picking, branches: [] }]);
    const visible = [30, 31, 34, 35];
    const branches = visible.map((v, i) => ({ visible: v, length: 8 - i }));
    const slot = { sequence, at: 30, tokens: tokens.slice(30, 35), ...picking, branches };
    const others = [drafter.open(), drafter.open()].map((other) => ({ ...slot, sequence: other, at: 0, branches: [] }));
    for (const slots of [[slot], [...others, slot]]) {
      const { outputs } = await drafter.run(slots);
      for (const [i, got] of outputs.at(-1)?.branches.entries() ?? []) {
        const alone = await draftAlone(tokens.slice(0, visible[i]), branches[i]?.length as number);
        expect(got.tokens).toEqual(alone.tokens);
        for (const [k, c] of got.confidences.entries()) expect(c).toBeCloseTo(alone.confidences[k] as number, 4);
      }
    }
    for (const { sequence: other } of [slot, ...others]) drafter.close(other);
  });

  test('drafts differently with other uniforms or sampling, and a longer branch starts with the shorter one', async () => {
    const { tokens: drafted, confidences } = await draftAlone(tokens, 8);
    expect(drafted).toHaveLength(8);
    expect([...confidences].every((c) => c > 0 && c <= 1)).toBe(true);
    expect((await draftAlone(tokens, 3)).tokens).toEqual(drafted.slice(0, 3));
    expect((await draftAlone(tokens, 8, nucleus, { seed: 8n, offset: 0 })).tokens).not.toEqual(drafted);
    expect((await draftAlone(tokens, 8, greedy)).tokens).not.toEqual(drafted);
  });

  test.each([nucleus, greedy])('does not start a branch with its excluded token: %j', async (sampling) => {
    const sequence = drafter.open();
    const branch = { visible: tokens.length, length: 8 };
    const run = async (excluded?: number) => {
      const changed = { ...branch, ...(excluded !== undefined && { excluded }) };
      const branches = [branch, changed, { ...branch, visible: tokens.length - 1 }];
      const slot = { sequence, at: 0, tokens, sampling, uniforms: source, branches };
      return (await drafter.run([slot])).outputs[0]?.branches.map((branch) => branch.tokens) as Int32Array[];
    };
    const [first, same, other] = await run();
    expect(same).toEqual(first);
    const [unchanged, without, unmoved] = await run(first?.[0]);
    expect(without?.[0]).not.toBe(first?.[0]);
    expect([unchanged, unmoved]).toEqual([first, other]);
    drafter.close(sequence);
  });

  test('drafts after a rollback as if the dropped rows had never existed', async () => {
    const sequence = drafter.open();
    const slot = { sequence, sampling: nucleus, uniforms: source, branches: [] };
    await drafter.run([{ ...slot, at: 0, tokens: tokens.slice(0, 20) }]);
    await drafter.run([{ ...slot, at: 20, tokens: [1, 2, 3] }]);
    const again = { ...slot, at: 19, tokens: tokens.slice(19, 20), branches: [{ visible: 20, length: 8 }] };
    const { outputs } = await drafter.run([again]);
    expect(outputs[0]?.branches[0]?.tokens).toEqual((await draftAlone(tokens.slice(0, 20), 8)).tokens);
    drafter.close(sequence);
  });

  test('rejects branches that see too many rows or are too long', async () => {
    const sequence = drafter.open();
    const slot = { sequence, at: 0, tokens: [1, 2], sampling: greedy, uniforms: source };
    await expect(drafter.run([{ ...slot, branches: [{ visible: 3, length: 1 }] }])).rejects.toThrow(
      '`visible` must be an integer in [1, 2], got 3',
    );
    await expect(drafter.run([{ ...slot, branches: [{ visible: 2, length: 9 }] }])).rejects.toThrow(
      'the branch length must be an integer in [1, 8], got 9',
    );
    drafter.close(sequence);
    expect(drafter.usage()).toEqual({ sequences: 0, cacheBytes: 0 });
  });

  test('knows its longest branch and its yield', () => {
    expect(drafter.maxBranchLength).toBe(8);
    expect(drafter.yieldCurve).toHaveLength(9);
    expect(drafter.yieldCurveAfterMiss).toHaveLength(9);
  });
});

describe('draft and verify', () => {
  const prompt = Array.from('import torch', (c) => c.charCodeAt(0) - 32);
  const length = 100;

  /** Generates `length` tokens after the prompt with drafts of `draftLength` tokens. 0 means plain decoding. */
  async function write(sampling: SamplingParams, draftLength: number) {
    const [verified, drafted] = [target.open(), drafter.open()];
    const text = [...prompt];
    const end = prompt.length + length;
    let [calls, read, draftRead] = [0, 0, 0];
    while (text.length < end) {
      let draft: number[] = [];
      if (draftLength > 0) {
        const at = Math.min(draftRead, text.length - 1);
        const branches = [{ visible: text.length, length: draftLength }];
        const slot = { sequence: drafted, at, tokens: text.slice(at), sampling, uniforms: source, branches };
        draft = [...((await drafter.run([slot])).outputs[0]?.branches[0]?.tokens ?? [])];
        draftRead = text.length;
      }
      const tokens = [...text.slice(read), ...draft];
      const { outputs } = await target.run([{ sequence: verified, at: read, tokens, sampling, uniforms: source }]);
      const picks = outputs[0]?.picks.subarray(text.length - 1 - read) ?? [];
      text.push(...accept(draft, picks).tokens);
      read = text.length - 1;
      calls++;
    }
    target.close(verified);
    drafter.close(drafted);
    return { text: text.slice(0, end), calls };
  }

  test.each(settings)("writes the target's own text in fewer calls: %j", async (sampling) => {
    const plain = await write(sampling, 0);
    expect(plain.calls).toBe(length);
    for (const draftLength of [1, 3, 8]) {
      const { text, calls } = await write(sampling, draftLength);
      expect(text).toEqual(plain.text);
      expect(calls).toBeLessThan(0.9 * length);
    }
  });
});

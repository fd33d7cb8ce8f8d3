import { fileURLToPath } from 'node:url';
import type { SamplingParams } from '@ptp/protocol/sampling-params';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { checkFeeds } from '../src/onnx/check-feeds.ts';
import { openDraftEngine, openTargetEngine } from '../src/open-engine.ts';
import type { DraftEngine, DraftSlot, SequenceId, TargetEngine } from '../src/types.ts';
import { type Opened, remote } from './contract/engines.ts';

// The drafter contains the whole target, here in float32, so it always finds the first wrong token of a block.

const dir = fileURLToPath(new URL('../../test/models/tiny-feature', import.meta.url));
const settings: SamplingParams[] = [
  { temperature: 0, topK: 0, topP: 1 },
  { temperature: 1, topK: 0, topP: 1 },
  { temperature: 0.8, topK: 20, topP: 0.9 },
  { temperature: 1.4, topK: 100, topP: 0.99, minP: 0.02 },
];
const prompt = Array.from('import torch', (c) => c.charCodeAt(0) - 32);

const drafters: [string, () => Promise<Opened<DraftEngine>>][] = [
  ['in a thread', async () => ({ engine: await openDraftEngine({ dir }) })],
  ['behind EngineService', async () => remote(await openDraftEngine({ dir }), openDraftEngine, { dir })],
];

let target: TargetEngine;
beforeAll(async () => {
  target = await openTargetEngine({ dir });
});
afterAll(() => target.dispose());

const uniforms = { seed: 7n, offset: 0 };

/** Returns the target's own text after the prompt. */
async function written(sampling: SamplingParams, count: number): Promise<number[]> {
  const sequence = target.open();
  const text = [...prompt];
  for (let at = 0; text.length < prompt.length + count; at = text.length - 1) {
    const tokens = text.slice(at);
    const { outputs } = await target.run([{ sequence, at, tokens, sampling, uniforms }]);
    text.push(outputs[0]?.picks.at(-1) ?? -1);
  }
  target.close(sequence);
  return text.slice(prompt.length);
}

/**
 * Returns a block of `length` tokens that follows `committed` tokens of the text. Only its first `right` tokens are
 * correct.
 */
function blockOf(text: readonly number[], committed: number, length: number, right: number): number[] {
  const block = text.slice(committed, committed + length);
  if (right < length) block[right] = ((block[right] as number) + 1) % 257;
  return block;
}

function slotFor(
  sequence: SequenceId,
  sampling: SamplingParams,
  text: readonly number[],
  { committed, block, draft: length }: { committed: number; block: readonly number[]; draft: number },
): DraftSlot {
  const tokens = [...prompt, ...text.slice(0, committed), ...block];
  return { sequence, at: 0, tokens, sampling, uniforms, branches: [], check: { block: block.length, length } };
}

describe.each(drafters)('a drafter that checks blocks, %s', (_, open) => {
  let opened: Opened<DraftEngine>;
  let drafter: DraftEngine;
  beforeAll(async () => {
    opened = await open();
    drafter = opened.engine;
  });
  afterAll(async () => {
    await drafter.dispose();
    await opened.release?.();
  });

  const cases = [
    { committed: 8, length: 6, right: 6 },
    { committed: 8, length: 6, right: 3 },
    { committed: 5, length: 4, right: 0 },
    { committed: 0, length: 0, right: 0 },
  ];

  test.each(settings)(
    "finds the first wrong token of the block and starts with the target's pick there: %j",
    async (s) => {
      const text = await written(s, 24);
      for (const { committed, length, right } of cases) {
        const sequence = drafter.open();
        const asked = { committed, block: blockOf(text, committed, length, right), draft: 5 };
        const { outputs } = await drafter.run([slotFor(sequence, s, text, asked)]);
        drafter.close(sequence);
        const [branch] = outputs[0]?.branches ?? [];
        expect(branch?.accepted).toBe(right);
        expect(branch?.tokens).toHaveLength(5);
        expect(branch?.tokens[0]).toBe(text[committed + right]);
        expect([...(branch?.confidences ?? [])].every((c) => c > 0 && c <= 1)).toBe(true);
      }
    },
  );

  test('drafts the same for several sequences as for each alone, whatever their blocks and lengths', async () => {
    const texts = await Promise.all(settings.map((s) => written(s, 24)));
    const slots = cases.map(({ committed, length, right }, i) => {
      const text = texts[i] as number[];
      const asked = { committed, block: blockOf(text, committed, length, right), draft: [8, 1, 3, 2][i] as number };
      return slotFor(drafter.open(), settings[i] as SamplingParams, text, asked);
    });
    const alone = [];
    for (const slot of slots) alone.push((await drafter.run([slot])).outputs[0]);
    const { outputs } = await drafter.run(slots);
    for (const [i, { branches }] of outputs.entries()) {
      expect(branches[0]?.tokens).toEqual(alone[i]?.branches[0]?.tokens);
      expect(branches[0]?.accepted).toBe(cases[i]?.right);
      for (const [k, c] of branches[0]?.confidences.entries() ?? []) {
        expect(c).toBeCloseTo(alone[i]?.branches[0]?.confidences[k] as number, 4);
      }
    }
    expect(outputs.map(({ branches }) => branches[0]?.tokens.length)).toEqual([8, 1, 3, 2]);
    for (const { sequence } of slots) drafter.close(sequence);
  });

  test('is often right about the following tokens, and continues from its cache', async () => {
    const [, sampling] = settings as [SamplingParams, SamplingParams];
    const text = await written(sampling, 120);
    const sequence = drafter.open();
    let right = 0;
    let read = 0;
    for (let committed = 0; committed < 110; committed += 10) {
      const { tokens, check, ...slot } = slotFor(sequence, sampling, text, { committed, block: [], draft: 4 });
      const { outputs } = await drafter.run([
        { ...slot, at: read, tokens: tokens.slice(read), ...(check && { check }) },
      ]);
      read = tokens.length - 1;
      const drafted = [...(outputs[0]?.branches[0]?.tokens ?? [])];
      expect(drafted[0]).toBe(text[committed]);
      const wrong = drafted.findIndex((token, k) => token !== text[committed + k]);
      right += wrong < 0 ? 4 : wrong;
    }
    drafter.close(sequence);
    expect(right).toBeGreaterThan(11);
  });

  test('reads a slot without a check, and drafts nothing for it', async () => {
    const sequence = drafter.open();
    const slot = { sequence, at: 0, tokens: prompt, sampling: settings[0] as SamplingParams, uniforms, branches: [] };
    expect((await drafter.run([slot])).outputs).toEqual([{ branches: [] }]);
    drafter.close(sequence);
  });

  test('rejects branches, a block that is not in the run, and a draft that is too long', async () => {
    const sequence = drafter.open();
    const slot = { sequence, at: 0, tokens: [1, 2], sampling: settings[0] as SamplingParams, uniforms, branches: [] };
    await expect(drafter.run([{ ...slot, branches: [{ visible: 2, length: 4 }] }])).rejects.toThrow(
      '`branches` must be empty for a drafter that checks blocks, got 1',
    );
    await expect(drafter.run([{ ...slot, check: { block: 2, length: 4 } }])).rejects.toThrow(
      '`block` must be an integer in [0, 1], got 2',
    );
    await expect(drafter.run([{ ...slot, check: { block: 0, length: 9 } }])).rejects.toThrow(
      'the draft length must be an integer in [1, 8], got 9',
    );
    drafter.close(sequence);
  });
});

test('the feeds of a check: blocks and uniforms of unequal length, a slot without a block', () => {
  const sampling = settings[2] as SamplingParams;
  const u = Float32Array.from({ length: 6 }, (_, i) => i / 8);
  const feeds = checkFeeds(
    [
      { at: 0, tokens: [13], sampling, block: 0, length: 1, u: Float32Array.of(0.9) }, // The run pads it to two tokens.
      { at: 3, tokens: [10, 11, 12], sampling, block: 2, length: 4, u },
    ],
    1,
    2,
  );
  expect(feeds.check_rows).toMatchObject({ dims: [2, 3], data: BigInt64Array.from([0n, 0n, 0n, 2n, 3n, 4n]) });
  expect(feeds.check_tokens).toMatchObject({ data: BigInt64Array.from([-1n, -1n, -1n, 11n, 12n, -1n]) });
  expect(feeds.visible).toMatchObject({ dims: [2, 1], data: BigInt64Array.from([1n, 4n]) });
  expect(feeds.steps).toMatchObject({ data: BigInt64Array.from([3n]) });
  expect(feeds.uniforms).toMatchObject({ dims: [2, 6, 1], data: Float32Array.from([0.9, 0, 0, 0, 0, 0, ...u]) });
});

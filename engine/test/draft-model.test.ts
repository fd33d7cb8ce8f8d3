import { fileURLToPath } from 'node:url';
import { loadManifest, type Manifest } from '@ptp/protocol/manifest';
import { beforeAll, describe, expect, test } from 'vitest';
import { AutoregressiveDraftEngine } from '../src/draft-model.ts';
import { checkDraftModel } from '../src/draft-vocabulary.ts';
import { uniforms } from '../src/sampling/uniforms.ts';
import { FakeTargetEngine } from '../src/testing/fake-engine.ts';
import { fakeText } from '../src/testing/fake-language.ts';
import type { DraftSlot, SequenceId } from '../src/types.ts';

// The fake model's tokens depend on every token before them, so a cache row of a wrong token changes the text.
const language = { vocabulary: 64, uniformsPerPosition: 2, maxSlots: 4 };
const sampling = { temperature: 0.7, topK: 0, topP: 1 };
const prompt = [3, 1, 4, 1, 5];

const drafter = () => new AutoregressiveDraftEngine(new FakeTargetEngine(language));
const source = { seed: 11n, offset: 0 };
/** Returns the model's continuation of `tokens`, with the uniforms of its positions. */
const continuation = (tokens: readonly number[], count: number) =>
  fakeText(tokens, sampling, uniforms(11n, tokens.length, count, language.uniformsPerPosition), language);

/**
 * Returns a slot whose last `block` tokens are the block. It drafts `length` tokens after the correct beginning of the
 * block.
 */
function slot(sequence: SequenceId, at: number, tokens: readonly number[], block: number, length: number): DraftSlot {
  return { sequence, at, tokens, sampling, uniforms: source, branches: [], check: { block, length } };
}

/** Replaces the token at index `at` of the block. */
const spoilt = (block: readonly number[], at: number) => block.map((token, k) => (k === at ? (token % 63) + 1 : token));

describe('a complete model that drafts token by token', () => {
  test.each([0, 2, 3, 4])('drafts on from the first wrong token of the block: token %i of 4', async (wrong) => {
    const engine = drafter();
    const sequence = engine.open();
    const block = continuation(prompt, 4);
    const { outputs } = await engine.run([slot(sequence, 0, [...prompt, ...spoilt(block, wrong)], 4, 6)]);
    const [branch] = outputs[0]?.branches ?? [];
    expect(branch?.accepted).toBe(wrong);
    expect([...(branch?.tokens ?? [])]).toEqual(continuation([...prompt, ...block.slice(0, wrong)], 6));
    expect(branch?.confidences).toHaveLength(6);
    expect(branch?.confidences.every((c) => c > 0 && c <= 1)).toBe(true);
  });

  test('overwrites rows of a block while drafting, and reads them again if the block is committed', async () => {
    const engine = drafter();
    const sequence = engine.open();
    // The model considers the third token wrong and drafts over the block's rows from there. Then the whole block is
    // committed.
    const block = spoilt(continuation(prompt, 5), 2);
    await engine.run([slot(sequence, 0, [...prompt, ...block], 5, 4)]);
    const text = [...prompt, ...block];
    const { outputs } = await engine.run([slot(sequence, text.length, [9], 0, 5)]);
    expect([...(outputs[0]?.branches[0]?.tokens ?? [])]).toEqual(continuation([...text, 9], 5));
  });

  test('reads prompts, and drafts the same for several sequences at once as for each alone', async () => {
    const engine = drafter();
    const [one, other, third] = [engine.open(), engine.open(), engine.open()];
    const read = { sequence: third, at: 0, tokens: prompt, sampling, uniforms: source, branches: [] };
    const block = continuation([7, 7], 2);
    const { outputs } = await engine.run([slot(one, 0, prompt, 0, 7), slot(other, 0, [7, 7, ...block], 2, 1), read]);
    const texts = outputs.map(({ branches }) => branches.map(({ tokens }) => [...tokens]));
    expect(texts).toEqual([[continuation(prompt, 7)], [continuation([7, 7, ...block], 1)], []]);
    const next = await engine.run([slot(third, prompt.length, [2], 0, 3)]);
    expect([...(next.outputs[0]?.branches[0]?.tokens ?? [])]).toEqual(continuation([...prompt, 2], 3));
  });

  test('rejects invalid slots', async () => {
    const engine = drafter();
    const sequence = engine.open();
    await expect(engine.run([slot(sequence, 0, prompt, 5, 1)])).rejects.toThrow('`block` must be an integer in [0, 4]');
    await expect(engine.run([slot(sequence, 0, prompt, 0, 65)])).rejects.toThrow(
      'the draft length must be an integer in [1, 64], got 65',
    );
    engine.close(sequence);
    await expect(engine.run([slot(sequence, 0, prompt, 0, 1)])).rejects.toThrow('is not open');
    expect(engine.usage().sequences).toBe(0);
  });
});

describe('a draft model', () => {
  const path = fileURLToPath(new URL('../../test/models/tiny', import.meta.url));
  const check = (draft: Manifest, manifest: Manifest) =>
    checkDraftModel({ path, manifest: draft }, { path, manifest }, 'PTP_DRAFT_MODEL');
  let pair: Manifest;
  beforeAll(async () => {
    pair = await loadManifest(path);
  });

  test('may be any model with the same tokens', async () => {
    await check({ ...pair, id: 'small', drafter: undefined }, pair);
  });

  test.each([
    [{ tokenizer: { sha256: 'f'.repeat(64) } }, 'the SHA-256 of `tokenizer.json`'],
    [{ end_of_text: 7 }, '`end_of_text` of small must be 0, as in tiny, got 7'],
    [{ pick: 'cdf' as const }, '`pick` of small must be tree'],
  ])('is rejected if they differ: %j', async (difference, message) => {
    const draft = { ...pair, id: 'small', ...difference };
    await expect(check(draft, { ...pair, id: 'tiny', pick: 'tree' })).rejects.toThrow(message);
  });
});

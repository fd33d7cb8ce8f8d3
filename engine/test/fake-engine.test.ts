import { expect, test } from 'vitest';
import { accept } from '../src/sampling/accept.ts';
import { uniforms } from '../src/sampling/uniforms.ts';
import { FakeDraftEngine, FakeTargetEngine } from '../src/testing/fake-engine.ts';
import { fakeNext, fakeText } from '../src/testing/fake-language.ts';

const sampling = { temperature: 1, topK: 0, topP: 1 };
const prompt = [3, 1, 4, 1, 5];
/** Source of the uniforms of a text that follows the prompt. */
const source = { seed: 1n, offset: -prompt.length };
const u = uniforms(1n, 0, 64);

test('the fake target picks the tokens of fakeText, however the text is read', async () => {
  const engine = new FakeTargetEngine();
  const sequence = engine.open();
  const text = fakeText(prompt, sampling, u);
  const picking = { sampling, uniforms: source };
  const all = [...prompt, ...text.slice(0, -1)];
  await engine.run([{ sequence, at: 0, tokens: [...prompt, 9, 9, 9] }]);
  const at = prompt.length - 1;
  const { outputs } = await engine.run([{ sequence, at, tokens: all.slice(at), ...picking }]);
  expect([...(outputs[0]?.picks ?? [])]).toEqual(text);
  expect(engine.usage()).toEqual({ sequences: 1, cacheBytes: 4 * all.length });
});

test('its picks depend on every token, on the sampling, and on u unless sampling is greedy', () => {
  const greedy = { ...sampling, temperature: 0 };
  const at = (tokens: number[], s = sampling, value = 0.5) => fakeNext(tokens, s, [value]);
  const different = [
    at(prompt),
    at([3, 2, 4, 1, 5]),
    at(prompt, sampling, 0.25),
    at(prompt, { ...sampling, topP: 0.5 }),
  ];
  expect(new Set(different).size).toBe(different.length);
  expect(at(prompt, greedy, 0.1)).toBe(at(prompt, greedy, 0.9));
  expect(at(prompt, { ...sampling }, 0.5)).toBe(at(prompt));
  expect(fakeText(prompt, sampling, u.slice(0, 4), { endAt: 7 })[2]).toBe(0);
  const pairs = [0.1, 0.2, 0.3, 0.4];
  const both = fakeText(prompt, sampling, pairs, { uniformsPerPosition: 2 });
  expect(both).toEqual([
    fakeNext(prompt, sampling, [0.1, 0.2]),
    fakeNext([...prompt, both[0] as number], sampling, [0.3, 0.4]),
  ]);
  expect(fakeNext(prompt, sampling, [0.1, 0.3])).not.toBe(both[0]);
});

test.each([0, 0.7, 1])('the drafter is right with probability %f', async (accuracy) => {
  const [target, drafter] = [new FakeTargetEngine(), new FakeDraftEngine({ accuracy })];
  const [verified, drafted] = [target.open(), drafter.open()];
  const count = 400;
  const text = fakeText(prompt, sampling, uniforms(1n, 0, count));
  let correct = 0;
  for (let i = 0; i < count; i++) {
    const seen = [...prompt, ...text.slice(0, i)];
    const rows = i === 0 ? 0 : seen.length - 1;
    const branch = { visible: seen.length, length: 1 };
    const slot = { at: rows, tokens: seen.slice(rows), sampling, uniforms: source };
    const draft = await drafter.run([{ ...slot, sequence: drafted, branches: [branch] }]);
    const guess = draft.outputs[0]?.branches[0];
    const check = await target.run([{ ...slot, sequence: verified }]);
    correct += accept(guess?.tokens ?? [], [check.outputs[0]?.picks.at(-1) as number, 0]).accepted;
  }
  expect(correct / count).toBeCloseTo(accuracy, 0.9);
});

test('fake engines validate slots like real ones, and fail after die()', async () => {
  const engine = new FakeTargetEngine({ latencyMs: 50 });
  const sequence = engine.open();
  await expect(engine.run([{ sequence, at: 1, tokens: [1] }])).rejects.toThrow('`at` must be an integer in [0, 0]');
  const run = expect(engine.run([{ sequence, at: 0, tokens: [1] }])).rejects.toMatchObject({ code: 'unavailable' });
  engine.die();
  await run;
  expect(() => engine.open()).toThrow('the engine has failed');
});

test('runs take the configured time, one after another', async () => {
  const engine = new FakeTargetEngine({ latencyMs: 20 });
  const sequences = [engine.open(), engine.open()];
  const started = performance.now();
  const runs = sequences.map((sequence) => engine.run([{ sequence, at: 0, tokens: [1] }]));
  for (const { runMicros } of await Promise.all(runs)) expect(runMicros).toBeGreaterThan(19_000);
  expect(performance.now() - started).toBeGreaterThan(38);
  for (const sequence of sequences) engine.close(sequence);
  expect(engine.usage()).toEqual({ sequences: 0, cacheBytes: 0 });
});

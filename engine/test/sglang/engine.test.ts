import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { checkBatchInvariance } from '../../src/batch-invariance.ts';
import type { SequenceId, TargetEngine } from '../../src/types.ts';
import { dir, openOn, startFake } from './servers.ts';

const sampling = { temperature: 0.8, topK: 20, topP: 0.9 };
const uniforms = { seed: 7n, offset: 0 };
const tokens = Array.from({ length: 60 }, (_, i) => (i * 37) % 257);

async function picks(engine: TargetEngine, sequence: SequenceId, at: number, part: readonly number[]) {
  const { outputs } = await engine.run([{ sequence, at, tokens: part, sampling, uniforms }]);
  return [...(outputs[0]?.picks ?? [])];
}

describe('a target in SGLang', () => {
  test('has the sizes of its folder', async () => {
    const engine = await openOn([await startFake()], { sequences: 3 });
    const sizes = { vocabulary: 257, contextLength: 256, uniformsPerPosition: 9, maxSequences: 3, prefillChunk: 1024 };
    expect(engine.info).toMatchObject({ ...sizes, engine: 'sglang', candidateLimit: 1024 });
  });

  test('is batch-invariant if its server is', async () => {
    const invariant = await openOn([await startFake()]);
    expect(await checkBatchInvariance(invariant, 1000)).toMatchObject({ invariant: true });
    const varying = await openOn([await startFake({ varies: true })]);
    expect(await checkBatchInvariance(varying, 1000)).toMatchObject({ invariant: false });
  });

  test('sends one request for a draft, and the server reuses the rows before it', async () => {
    const fake = await startFake();
    const engine = await openOn([fake]);
    const sequence = engine.open();
    expect(await engine.reusePrefix(sequence, tokens.slice(0, 40))).toBe(0);
    await engine.run([{ sequence, at: 0, tokens: tokens.slice(0, 40) }]);
    const before = fake.requests.length;
    await picks(engine, sequence, 40, tokens.slice(40, 49));
    expect(fake.requests.slice(before)).toMatchObject([
      {
        input_ids: [...tokens.slice(0, 49), 0],
        sampling_params: { max_new_tokens: 0, temperature: 1 },
        return_logprob: true,
        logprob_start_len: 40,
        top_logprobs_num: 28,
        token_ids_logprob: [0],
      },
    ]);
    expect(fake.cachedTokens.at(-1)).toBe(40);
    // Four tokens of the draft were right. The next run overwrites the other rows.
    await picks(engine, sequence, 44, [200, 201]);
    expect(fake.requests.at(-1)?.input_ids).toEqual([...tokens.slice(0, 44), 200, 201, 0]);
    expect(fake.cachedTokens.at(-1)).toBe(44);
  });

  test('reports how many tokens of a prompt the server had, in whole blocks', async () => {
    const engine = await openOn([await startFake()]);
    const [first, second, third] = [engine.open(), engine.open(), engine.open()];
    expect(await engine.reusePrefix(first, tokens)).toBe(0);
    expect(await engine.reusePrefix(second, [...tokens.slice(0, 35), 1, 2])).toBe(32);
    expect(await engine.reusePrefix(third, [])).toBe(0);
    expect(engine.prefixCache()).toEqual({ sequences: 0, bytes: 0, lookups: 2, hits: 1, reusedTokens: 32 });
    expect(await picks(engine, second, 32, tokens.slice(32))).toEqual(
      await picks(engine, first, 0, tokens).then((all) => all.slice(32)),
    );
    const without = await openOn([await startFake()], { prefixCacheBytes: 0 });
    const [one, other] = [without.open(), without.open()];
    await without.reusePrefix(one, tokens);
    expect(await without.reusePrefix(other, tokens)).toBe(0);
  });

  test('picks nothing without sampling, and sends nothing', async () => {
    const fake = await startFake();
    const engine = await openOn([fake]);
    const before = fake.requests.length;
    const { outputs } = await engine.run([{ sequence: engine.open(), at: 0, tokens }]);
    expect(outputs).toEqual([{ picks: new Int32Array(), logProbabilities: new Float32Array() }]);
    expect(fake.requests).toHaveLength(before);
  });

  test('rejects a repetition penalty, which log-probabilities cannot show', async () => {
    const engine = await openOn([await startFake()]);
    const adjust = [{ scaled: Int32Array.of(3), scale: 1.3, biased: new Int32Array(), biases: new Float32Array() }];
    const run = engine.run([{ sequence: engine.open(), at: 0, tokens: [5], sampling, uniforms, adjust }]);
    await expect(run).rejects.toMatchObject({
      code: 'invalid_argument',
      field: 'repetition_penalty',
      message: '`repetition_penalty` must be 1 for a model in SGLang, which returns no logits, got 1.3',
    });
  });

  test('fills the context to the last token', async () => {
    const engine = await openOn([await startFake({ maxInput: 257 })]);
    const sequence = engine.open();
    const text = Array.from({ length: 256 }, (_, i) => (i * 7) % 257);
    expect(await picks(engine, sequence, 0, text)).toHaveLength(256);
    await expect(picks(engine, sequence, 256, [1])).rejects.toMatchObject({ code: 'out_of_range' });
  });
});

describe('the start', () => {
  test('rejects a server with a shorter context, and says what to set', async () => {
    const fake = await startFake({ maxInput: 200 });
    await expect(openOn([fake])).rejects.toMatchObject({
      code: 'failed_precondition',
      message: `${fake.url} takes requests of up to 200 tokens: set \`PTP_CONTEXT_LENGTH\` to at most 199 in all services, or a longer --context-length in SGLang; got 256`,
    });
    await openOn([fake], { contextLength: 199 });
  });

  test('rejects servers with different models', async () => {
    const score = async (ids: readonly number[], from: number) => ids.slice(from).map(() => new Float32Array(257));
    const fakes = [await startFake(), await startFake({ score })];
    await expect(openOn(fakes)).rejects.toThrow(`must serve the same model as ${fakes[0]?.url}`);
  });

  test('waits for a server, and gives up after the limit', async () => {
    const waits: unknown[] = [];
    const logger = { info: (entry: unknown) => void waits.push(entry) };
    const url = 'http://127.0.0.1:9';
    const opening = openOn([{ url }], { startLimitMs: 600, logger: logger as never });
    await expect(opening).rejects.toThrow(
      `no SGLang server could be used within 0.6 s: ${url} did not answer /server_info`,
    );
    expect(waits.length).toBeGreaterThan(0);
  });

  test('needs a model that picks by the tree of uniforms', async () => {
    const fake = await startFake();
    await expect(openOn([fake], { dir: dir.replace('tiny', 'none') })).rejects.toThrow('manifest.json');
    const folder = await mkdtemp(join(tmpdir(), 'ptp-cdf-'));
    onTestFinished(() => rm(folder, { recursive: true }));
    const manifest = JSON.parse(await readFile(join(dir, 'manifest.json'), 'utf8'));
    const changed = { ...manifest, pick: 'cdf', uniforms_per_position: 1 };
    await writeFile(join(folder, 'manifest.json'), JSON.stringify(changed));
    await expect(openOn([fake], { dir: folder })).rejects.toMatchObject({
      code: 'failed_precondition',
      message: `PTP_ENGINE: SGLang needs a model with \`pick\` tree, got cdf in \`${folder}\``,
      field: 'PTP_ENGINE',
    });
  });
});

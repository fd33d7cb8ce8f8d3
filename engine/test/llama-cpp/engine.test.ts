import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { treeDepth } from '@ptp/protocol/sampling-params';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openTargetEngine } from '../src/open-engine.ts';
import { allowOnly } from '../src/sampling/adjust.ts';
import { uniforms } from '../src/sampling/uniforms.ts';
import type { TargetEngine, TargetOutput, TargetSlot } from '../src/types.ts';

const root = fileURLToPath(new URL('../../', import.meta.url));
const python = process.env.PTP_PYTHON ?? join(root, 'training', '.venv', 'bin', 'python');
const folder = mkdtempSync(join(tmpdir(), 'ptp-gguf-'));
const file = join(folder, 'default.gguf');
const missing = await reasonToSkip();
if (missing) process.stderr.write(`llama.cpp tests skipped: ${missing}\n`);

async function reasonToSkip(): Promise<string | undefined> {
  if (!existsSync(python)) return 'no Python with ptp-train (PTP_PYTHON)';
  return import('node-llama-cpp').then(
    () => undefined,
    () => 'node-llama-cpp is not installed',
  );
}

const greedy = { temperature: 0, topK: 0, topP: 1 };
const sampled = { temperature: 0.8, topK: 40, topP: 0.95 };
const text = Array.from({ length: 24 }, (_, i) => 300 + ((i * 37) % 500));

describe.skipIf(missing)('a GGUF target', () => {
  let engine: TargetEngine;
  beforeAll(async () => {
    const source = join(root, 'models', 'default');
    execFileSync(python, ['-m', 'ptp_train', 'export', '--to', 'gguf', '--from', source, '--out', file]);
    engine = await openTargetEngine({ dir: file, threads: 1, contextLength: 256, sequences: 3, prefixCacheBytes: 1e9 });
  }, 120_000);
  afterAll(async () => {
    await engine?.dispose();
    rmSync(folder, { recursive: true });
  });

  /** Runs a slot on a new sequence. */
  async function once(slot: Omit<TargetSlot, 'sequence' | 'at'>): Promise<TargetOutput> {
    const sequence = engine.open();
    try {
      return (await engine.run([{ sequence, at: 0, ...slot }])).outputs[0] as TargetOutput;
    } finally {
      engine.close(sequence);
    }
  }
  const drawn = (count: number) => uniforms(5n, 0, count, engine.info.uniformsPerPosition);

  test('knows its sizes from the metadata', () => {
    const { vocabulary, uniformsPerPosition, contextLength, maxSlots, bytesPerToken } = engine.info;
    expect(uniformsPerPosition).toBe(treeDepth(vocabulary));
    expect([contextLength, maxSlots]).toEqual([256, 3]);
    expect(bytesPerToken).toBeGreaterThan(0);
  });

  test('rows of a rejected block are overwritten', async () => {
    const sequence = engine.open();
    const u = drawn(text.length);
    const D = engine.info.uniformsPerPosition;
    const whole = await once({ tokens: text, sampling: sampled, u });
    await engine.run([{ sequence, at: 0, tokens: [...text.slice(0, 10), 9, 9, 9] }]);
    const slot = { sequence, at: 10, tokens: text.slice(10), sampling: sampled, u: u.slice(10 * D) };
    const { outputs } = await engine.run([slot]);
    expect([...(outputs[0]?.picks ?? [])]).toEqual([...whole.picks.slice(10)]);
    engine.close(sequence);
  });

  test('log-probabilities of all tokens sum to 1', async () => {
    const topCount = engine.info.vocabulary;
    const { topLogProbabilities = [] } = await once({ tokens: [5], sampling: greedy, u: drawn(1), topCount });
    expect(Array.from(topLogProbabilities).reduce((sum, value) => sum + Math.exp(value), 0)).toBeCloseTo(1, 3);
  });

  test('a mask limits the choice, however improbable its tokens are', async () => {
    const allowed = new Uint8Array(Math.ceil(engine.info.vocabulary / 8));
    allowed[12] = 1;
    const slot = { tokens: [5], sampling: greedy, u: drawn(1), adjust: [allowOnly(allowed)] };
    expect([...(await once(slot)).picks]).toEqual([96]);
  });

  test('reuses the rows of a closed sequence in whole blocks', async () => {
    await once({ tokens: text });
    const sequence = engine.open();
    expect(await engine.reusePrefix(sequence, [...text.slice(0, 20), 1])).toBe(16);
    engine.close(sequence);
  });
});

import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { DraftEngine, EngineOptions, SequenceId, TargetEngine } from '../../src/types.ts';
import { drafters, type Opened, stopWorkers, targets } from './engines.ts';

type AnyEngine = TargetEngine | DraftEngine;

const text = Array.from({ length: 60 }, (_, i) => 1 + ((i * 37) % 250));
const picking = { sampling: { temperature: 1, topK: 0, topP: 1 }, uniforms: { seed: 7n, offset: 0 } };

const engines = [
  ...targets.map((engine) => ({ ...engine, kind: 'target' })),
  ...drafters.map((engine) => ({ ...engine, kind: 'drafter' })),
].filter(({ missing }) => !missing);

afterAll(stopWorkers, 60_000);

describe.each(engines)('sequences of the $kind of $name', ({ kind, isReal, open }) => {
  const opened: Opened<AnyEngine>[] = [];
  // The first start can take far longer than the others.
  beforeAll(() => start(), 300_000);
  afterEach(async () => {
    for (const { engine, release } of opened.splice(0)) {
      await engine.dispose();
      await release?.();
    }
  }, 60_000);

  async function start(options?: Partial<EngineOptions>): Promise<Opened<AnyEngine>> {
    const started: Opened<AnyEngine> = await open(options);
    opened.push(started);
    return started;
  }

  /** Runs tokens without any result. */
  function write(engine: AnyEngine, sequence: SequenceId, tokens: readonly number[] = text, at = 0) {
    const slot = { sequence, at, tokens, ...picking, branches: [] };
    return kind === 'target' ? (engine as TargetEngine).run([slot]) : (engine as DraftEngine).run([slot]);
  }

  test('are counted with their bytes, until they are closed', async () => {
    const { engine } = await start({ prefixCacheBytes: 0 });
    const sequences = [engine.open(), engine.open()] as [SequenceId, SequenceId];
    expect(engine.usage()).toEqual({ sequences: 2, cacheBytes: 0 });
    await write(engine, sequences[0]);
    const { bytesPerToken } = engine.info;
    expect(engine.usage().cacheBytes).toBeGreaterThanOrEqual(text.length * bytesPerToken);
    expect(engine.usage().cacheBytes).toBeLessThanOrEqual(2 * text.length * bytesPerToken);
    for (const sequence of sequences) engine.close(sequence);
    engine.close(12345);
    expect(engine.usage()).toEqual({ sequences: 0, cacheBytes: 0 });
  });

  test('are limited in number', async () => {
    const { engine } = await start();
    const { maxSequences } = engine.info;
    const count = Math.min(maxSequences, 300);
    const sequences = Array.from({ length: count }, () => engine.open());
    if (maxSequences <= 300) expect(() => engine.open()).toThrow(`overloaded: ${count} sequences are open already`);
    for (const sequence of sequences) engine.close(sequence);
    await write(engine, engine.open());
  });

  test('reuse the rows of sequences with the same prefix', async () => {
    const { engine } = await start();
    const own = text.toReversed();
    const first = engine.open();
    expect(await engine.reusePrefix(first, own)).toBe(0);
    const before = engine.prefixCache();
    await write(engine, first, own);
    engine.close(first);
    const [same, other] = [engine.open(), engine.open()];
    const rows = await engine.reusePrefix(same, own);
    expect(rows).toBeGreaterThanOrEqual(isReal ? 32 : 0);
    expect(rows).toBeLessThanOrEqual(60);
    await write(engine, same, own.slice(rows), rows);
    const fewer = await engine.reusePrefix(other, [...own.slice(0, 20), 251, 252]);
    expect(fewer).toBeLessThanOrEqual(20);
    const { lookups, reusedTokens } = engine.prefixCache();
    if (isReal) expect([lookups - before.lookups, reusedTokens - before.reusedTokens]).toEqual([2, rows + fewer]);
    await write(engine, other, [9], fewer);
  });

  test('reuse rows only while they are open and empty', async () => {
    const { engine } = await start();
    await expect(engine.reusePrefix(999, text)).rejects.toMatchObject({ code: 'not_found' });
    const sequence = engine.open();
    await write(engine, sequence);
    await expect(engine.reusePrefix(sequence, text)).rejects.toMatchObject({ code: 'failed_precondition' });
  });

  test('may be closed during a run, which still ends', async () => {
    const { engine } = await start();
    const [closed, kept] = [engine.open(), engine.open()];
    const run = write(engine, closed);
    engine.close(closed);
    expect((await run).outputs).toHaveLength(1);
    expect(engine.usage().sequences).toBe(1);
    await expect(write(engine, closed)).rejects.toMatchObject({ code: 'not_found' });
    await write(engine, kept);
  });

  test('are lost when the engine is disposed of: runs in flight and later calls fail', async () => {
    const { engine } = await start();
    const sequence = engine.open();
    const run = expect(write(engine, sequence)).rejects.toMatchObject({ code: 'unavailable' });
    await engine.dispose();
    await run;
    await expect(write(engine, sequence)).rejects.toMatchObject({ code: 'unavailable' });
    expect(() => engine.open()).toThrow('stopped');
    engine.close(sequence);
    await engine.dispose();
  });

  test('are lost when the engine dies: it says so, and runs in flight and later calls fail', async ({ skip }) => {
    const { engine, kill } = await start();
    if (!kill) return skip('nothing to kill');
    const sequence = engine.open();
    const run = expect(write(engine, sequence)).rejects.toMatchObject({ code: 'unavailable' });
    void kill();
    await run;
    expect(await engine.died).toMatchObject({ code: 'unavailable' });
    await expect(write(engine, sequence)).rejects.toMatchObject({ code: 'unavailable' });
    await expect(engine.reusePrefix(sequence, text)).rejects.toMatchObject({ code: 'unavailable' });
    expect(() => engine.open()).toThrow('the engine');
    engine.close(sequence);
    expect(engine.usage()).toEqual({ sequences: 0, cacheBytes: 0 });
  });
});

import { readFile } from 'node:fs/promises';
import { checkBatchInvariance } from '@ptp/engine/batch-invariance';
import { openTargetEngine } from '@ptp/engine/open-engine';
import { randomTokens } from '@ptp/engine/sampling/uniforms';
import type { TargetEngine, TargetSlot } from '@ptp/engine/types';
import { loadManifest } from '@ptp/protocol/manifest';
import { Option } from 'commander';
import { REFERENCE } from '../passes.ts';
import { median, round } from '../statistics.ts';
import { countOptions, type EngineOptions, engineOptions, integer, suite } from '../suite.ts';

/** Maximum number of tokens in a run that reads a prompt. */
const CHUNK = 128;
/** Length of the prompts of concurrent sequences, in tokens. */
const SHARED_CONTEXT = 64;

const integers = (text: string) => text.split(',').map(integer());

interface Options extends EngineOptions {
  readonly contexts: readonly number[];
  readonly streams: readonly number[];
  readonly tokens: number;
}

/** Measures a target's engine without services, in this process. The tokens are random. */
export const engine = suite<Options>(
  'engine',
  'Measure the engine of a target in one process: start, memory, and the time of a token by context and by streams',
  [
    ...engineOptions('model folder or GGUF file'),
    new Option('--contexts <n,...>', 'numbers of tokens before the measured ones')
      .argParser(integers)
      .default([64, 1900]),
    new Option('--streams <n,...>', 'numbers of sequences that decode together').argParser(integers).default([1, 8]),
    ...countOptions({ tokens: 16 }),
  ],
  async ({ models, contexts, streams, threads, tokens }) => {
    const contextLength = Math.max(SHARED_CONTEXT, ...contexts) + tokens + 1;
    const { context_length: limit } = await loadManifest(models);
    if (contextLength > limit) {
      const longest = limit - tokens - 1;
      throw new Error(`--contexts must be at most ${longest} for this model, got ${Math.max(...contexts)}`);
    }
    const began = performance.now();
    const target = await openTargetEngine({
      dir: models,
      contextLength,
      sequences: Math.max(...streams),
      threads,
    });
    try {
      const start_ms = Math.round(performance.now() - began);
      const loaded = await memory();
      const { rows, invariant } = await checkBatchInvariance(target, 0);
      const first_check_ms = Math.round(performance.now() - began) - start_ms;
      const byContext = [];
      for (const context of contexts) {
        byContext.push(await decode(target, 1, context, tokens));
        console.error(JSON.stringify(byContext.at(-1)));
      }
      const byStreams = [];
      for (const count of streams) {
        byStreams.push(await decode(target, count, SHARED_CONTEXT, tokens));
        console.error(JSON.stringify(byStreams.at(-1)));
      }
      const memory_mb = { loaded, end: await memory() };
      return { threads, start_ms, first_check_ms, rows, invariant, memory_mb, contexts: byContext, streams: byStreams };
    } finally {
      await target.dispose();
    }
  },
);

/** Reads prompts of `context` tokens, then decodes `tokens` tokens of all sequences together. */
async function decode(target: TargetEngine, count: number, context: number, tokens: number): Promise<object> {
  const { vocabulary, maxSlots } = target.info;
  const prompt = randomTokens(BigInt(context), context, vocabulary);
  const sequences = Array.from({ length: count }, () => target.open());
  const began = performance.now();
  for (let at = 0; at < context; at += CHUNK) {
    const chunk = prompt.slice(at, at + CHUNK);
    for (const sequence of sequences) await target.run([{ sequence, at, tokens: chunk }]);
  }
  const prefill = performance.now() - began;
  const [times, work]: [number[], number[]] = [[], []];
  let last = sequences.map(() => 0);
  for (let i = 0; i < tokens; i++) {
    const slots = sequences.map((sequence, s) => {
      const pick = { sampling: REFERENCE, uniforms: { seed: BigInt(s), offset: 0 } };
      return { sequence, at: context + i, tokens: [last[s] as number], ...pick };
    });
    const [started, used] = [performance.now(), process.cpuUsage()];
    last = await runAll(target, maxSlots, slots);
    times.push(performance.now() - started);
    const { user, system } = process.cpuUsage(used);
    work.push((user + system) / 1000);
  }
  for (const sequence of sequences) target.close(sequence);
  const step = median(times);
  return {
    context,
    streams: count,
    prefill_tokens_s: round((count * context * 1000) / prefill),
    step_ms_p50: round(step),
    step_ms_min: round(Math.min(...times)),
    step_cpu_ms_p50: round(median(work)),
    tokens_s: round((count * 1000) / step),
  };
}

/** Runs slots in batches of at most `maxSlots`. @returns the last pick of each slot */
async function runAll(target: TargetEngine, maxSlots: number, slots: readonly TargetSlot[]): Promise<number[]> {
  const picks: number[] = [];
  for (let i = 0; i < slots.length; i += maxSlots) {
    const { outputs } = await target.run(slots.slice(i, i + maxSlots));
    picks.push(...outputs.map((output) => output.picks.at(-1) ?? 0));
  }
  return picks;
}

/** Returns the process's memory in megabytes: its anonymous pages, its pages of files, and its peak. */
async function memory(): Promise<Record<string, number>> {
  const status = await readFile('/proc/self/status', 'utf8');
  const megabytes = (name: string) => Math.round((Number(RegExp(`${name}:\\s+(\\d+)`).exec(status)?.[1]) * 1024) / 1e6);
  return { anonymous: megabytes('RssAnon'), files: megabytes('RssFile'), peak: megabytes('VmHWM') };
}

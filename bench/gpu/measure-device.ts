import { checkBatchInvariance } from '@ptp/engine/batch-invariance';
import { openDraftEngine, openTargetEngine } from '@ptp/engine/open-engine';
import { randomTokens } from '@ptp/engine/sampling/uniforms';
import type { DraftEngine, Engine, TargetEngine } from '@ptp/engine/types';
import { median, round } from '../statistics.ts';

/** Number of tokens before the measured tokens, read in one run. */
const CONTEXT = 128;
/** Number of drafted tokens per step. */
const DRAFT = 8;

const sampling = { temperature: 0, topK: 0, topP: 1 };
const uniforms = { seed: 1n, offset: 0 };

export interface DeviceReport {
  readonly device: string | undefined;
  readonly startMs: number;
  /** True if the self-check passed. Its longest run has 128 tokens. */
  readonly batchInvariant: boolean;
  readonly comparedRows: number;
  /** Picks and log-probabilities after each token of a text that is read in one run. */
  readonly picks: Int32Array;
  readonly logProbabilities: Float32Array;
  /** Median duration of a run that verifies a draft of 8 tokens for one sequence. */
  readonly verifyMs: number;
  /** Median duration of a run that verifies drafts of 8 tokens for `slots` sequences. */
  readonly verifyAllMs: number;
  /** Maximum number of sequences in a run. */
  readonly slots: number;
  /** Median duration of a run that drafts 8 tokens, or undefined without a drafter. */
  readonly draftMs: number | undefined;
}

/** Measures target and drafter of a model folder on one processor. @param runs number of runs per median */
export async function measureDevice(dir: string, device: 'cpu' | 'webgpu', runs = 20): Promise<DeviceReport> {
  const began = performance.now();
  const target = await openTargetEngine({ dir, device });
  const startMs = Math.round(performance.now() - began);
  const drafter = await openDraftEngine({ dir, device }).catch((error) => {
    console.error(`no drafter: ${error.message}`);
    return undefined;
  });
  try {
    const { invariant: batchInvariant, rows: comparedRows } = await checkBatchInvariance(target);
    const { picks, logProbabilities } = await read(target);
    const { maxSlots: slots, device: name } = target.info;
    const verifyMs = await timeOfVerify(target, 1, runs);
    const verifyAllMs = slots > 1 ? await timeOfVerify(target, slots, runs) : verifyMs;
    const draftMs = drafter && (await timeOfDraft(drafter, runs));
    const times = { startMs, verifyMs, verifyAllMs, slots, draftMs };
    return { device: name, batchInvariant, comparedRows, picks, logProbabilities, ...times };
  } finally {
    await target.dispose();
    await drafter?.dispose();
  }
}

async function read(target: TargetEngine) {
  const sequence = target.open();
  const { outputs } = await target.run([{ sequence, at: 0, tokens: text(target, CONTEXT), sampling, uniforms }]);
  target.close(sequence);
  const [{ picks, logProbabilities } = { picks: new Int32Array(), logProbabilities: new Float32Array() }] = outputs;
  return { picks, logProbabilities };
}

async function timeOfVerify(target: TargetEngine, count: number, runs: number): Promise<number> {
  const tokens = text(target, CONTEXT + 1 + DRAFT);
  const sequences = Array.from({ length: count }, () => target.open());
  for (const sequence of sequences) await target.run([{ sequence, at: 0, tokens: tokens.slice(0, CONTEXT) }]);
  const slots = sequences.map((sequence) => {
    return { sequence, at: CONTEXT, tokens: tokens.slice(CONTEXT), sampling, uniforms };
  });
  const time = await timeOf(() => target.run(slots), runs);
  for (const sequence of sequences) target.close(sequence);
  return time;
}

async function timeOfDraft(drafter: DraftEngine, runs: number): Promise<number> {
  const sequence = drafter.open();
  const tokens = text(drafter, CONTEXT);
  const length = Math.min(DRAFT, drafter.maxBranchLength);
  const request = drafter.checksBlocks
    ? { branches: [], check: { block: 0, length } }
    : { branches: [{ visible: CONTEXT, length }] };
  await drafter.run([{ sequence, at: 0, tokens, sampling, uniforms, branches: [] }]);
  const slot = { sequence, at: CONTEXT - 1, tokens: tokens.slice(-1), sampling, uniforms, ...request };
  const time = await timeOf(() => drafter.run([slot]), runs);
  drafter.close(sequence);
  return time;
}

/** Returns the median time of a run in milliseconds, after two runs that compile shaders. */
async function timeOf(run: () => Promise<{ readonly runMicros: number }>, runs: number): Promise<number> {
  for (let i = 0; i < 2; i++) await run();
  const times: number[] = [];
  for (let i = 0; i < runs; i++) times.push((await run()).runMicros / 1000);
  return round(median(times), 2);
}

function text({ info }: Engine, length: number): number[] {
  return randomTokens(3n, length, info.vocabulary);
}

import type { SamplingParams } from '@ptp/protocol/sampling-params';
import { type Adjustment, isAllowed } from '../sampling/adjust.ts';
import { uniformsAt } from '../sampling/uniforms.ts';
import type { TargetOutput, TargetSlot } from '../types.ts';
import { type GraphIo, idleContext, idleSampling, paddedLength, samplingFeeds } from './context-feeds.ts';
import { concatenated, type Feeds, float32, floatResult, int64, intResult, intsOf, type Results } from './tensors.ts';

/** Pick of the token that follows a token of the run. */
export interface Pick {
  /** Index of the token in the run's packed tokens. */
  readonly row: number;
  readonly sampling: SamplingParams;
  /** [D] uniforms of the pick. */
  readonly u: Float32Array;
  readonly adjust?: Adjustment | undefined;
}

/**
 * Returns the inputs and outputs of the sampler in a target's graph.
 *
 * @param dimensions the number of uniforms per position, D
 * @param vocabulary the size of the vocabulary, V
 * @param minRows see `OnnxModel.minRows`
 */
export function targetIo(dimensions: number, vocabulary: number, minRows: number): GraphIo<TargetSlot, TargetOutput> {
  return {
    idle: idleContext,
    feeds: (slots) => ({
      ...pickFeeds(picksOf(slots, dimensions, minRows), dimensions, vocabulary),
      top_count: int64([mostTops(slots)]),
    }),
    outputs: targetOutputs,
  };
}

export function picksOf(slots: readonly TargetSlot[], dimensions: number, minRows: number): Pick[] {
  const picks: Pick[] = [];
  let row = 0;
  for (const slot of slots) {
    const { at, tokens, sampling, uniforms, adjust } = slot;
    if (sampling && uniforms) {
      const u = uniformsAt(uniforms, at + 1, tokens.length, dimensions);
      for (const i of tokens.keys()) {
        const own = u.subarray(i * dimensions, (i + 1) * dimensions);
        picks.push({ row: row + i, sampling, u: own, adjust: adjust?.[i] });
      }
    }
    row += paddedLength(slot, minRows);
  }
  return picks;
}

/** Returns the number of alternatives for the whole run, because the graph returns the same number for every row. */
export function mostTops(slots: readonly TargetSlot[]): number {
  return Math.max(...slots.map(({ topCount = 0 }) => topCount));
}

/**
 * Builds the feeds of the sampler: rows [R]; temperature, top_k, top_p, min_p [R, 1]; u [R, D]; scale and bias, each
 * [R, V], or [0, V] if no row has any. R is at least 2, for the reason given at `MIN_ROWS`.
 */
export function pickFeeds(picks: readonly Pick[], dimensions: number, vocabulary: number): Feeds {
  const ignored: Pick = { row: 0, sampling: idleSampling, u: new Float32Array(dimensions) };
  const rows = [...picks, ignored, ignored].slice(0, Math.max(2, picks.length));
  const us = rows.map(({ u }) => u);
  return {
    rows: intsOf(rows, ({ row }) => row),
    ...samplingFeeds(rows, [rows.length, 1]),
    u: concatenated(us, [rows.length, dimensions]),
    ...adjustFeeds(rows, vocabulary),
  };
}

function adjustFeeds(rows: readonly Pick[], vocabulary: number): Feeds {
  const scaleRows = rows.some(({ adjust }) => adjust && adjust.scaled.length > 0) ? rows.length : 0;
  const biasRows = rows.some(({ adjust }) => adjust && (adjust.biased.length > 0 || adjust.allowed)) ? rows.length : 0;
  const scales = new Float32Array(scaleRows * vocabulary).fill(1);
  const biases = new Float32Array(biasRows * vocabulary);
  for (const [i, { adjust }] of rows.entries()) {
    if (!adjust) continue;
    for (const id of adjust.scaled) scales[i * vocabulary + id] = adjust.scale;
    for (const [n, id] of adjust.biased.entries()) biases[i * vocabulary + id] = adjust.biases[n] ?? 0;
    if (adjust.allowed) forbid(adjust.allowed, biases.subarray(i * vocabulary, (i + 1) * vocabulary));
  }
  return { scale: float32(scales, [scaleRows, vocabulary]), bias: float32(biases, [biasRows, vocabulary]) };
}

function forbid(allowed: Uint8Array, biases: Float32Array): void {
  for (let id = 0; id < biases.length; id++) if (!isAllowed(allowed, id)) biases[id] = Number.NEGATIVE_INFINITY;
}

export function targetOutputs(slots: readonly TargetSlot[], results: Results): TargetOutput[] {
  const picks = intResult(results, 'pick');
  const logProbabilities = floatResult(results, 'logprob');
  const width = mostTops(slots);
  const topIds = width > 0 ? intResult(results, 'top_id') : new Int32Array();
  const topLogProbabilities = floatResult(results, 'top_logprob');
  let row = 0;
  return slots.map(({ tokens, sampling, topCount = 0 }) => {
    const own = Array.from({ length: sampling ? tokens.length : 0 }, () => row++);
    // The first `topCount` of the `width` columns, row by row.
    const tops = own.flatMap((r) => Array.from({ length: topCount }, (_, column) => r * width + column));
    return {
      picks: Int32Array.from(own, (r) => picks[r] as number),
      logProbabilities: Float32Array.from(own, (r) => logProbabilities[r] as number),
      ...(topCount > 0 && {
        topIds: Int32Array.from(tops, (i) => topIds[i] as number),
        topLogProbabilities: Float32Array.from(tops, (i) => topLogProbabilities[i] as number),
      }),
    };
  });
}

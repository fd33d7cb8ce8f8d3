import type { SamplingParams } from '@ptp/protocol/sampling-params';
import { type Adjustment, isAllowed } from '../sampling/adjust.ts';
import { type BranchRequest, branchLength } from '../types.ts';

/** One tensor to be fed. */
export type Feed =
  | { readonly type: 'float32'; readonly data: Float32Array; readonly dims: readonly number[] }
  | { readonly type: 'int64'; readonly data: BigInt64Array; readonly dims: readonly number[] };
export type Feeds = Record<string, Feed>;

/** Tokens of one slot, behind `past` rows of its cache. */
export interface Context {
  readonly past: number;
  readonly tokens: readonly number[];
}

/**
 * A slot with at least 2 tokens: onnxruntime multiplies a single row by other kernels, whose rounding differs. The
 * padding comes last, so no other token sees it; its own results are dead.
 */
export function padded({ past, tokens }: Context): Context {
  return tokens.length > 1 ? { past, tokens } : { past, tokens: [tokens[0] ?? 0, 0] };
}

/** What stands in a slot of the graph that no sequence uses. */
export const idleContext: Context = { past: 0, tokens: [0, 0] };

/** Feeds of the packed context tokens: ids, pos, splits, mask_{i}. See `target_graph` in training/src/ptp_train/export/model_folder.py. */
export function contextFeeds(slots: readonly Context[]): Feeds {
  const ids = slots.flatMap((slot) => slot.tokens);
  const positions = slots.flatMap(({ past, tokens }) => tokens.map((_, i) => past + i));
  const feeds: Feeds = { ids: int64(ids, [1, ids.length]), pos: int64(positions, [1, ids.length]) };
  for (const [i, { past, tokens }] of slots.entries()) {
    feeds[`mask_${i}`] = float32(causalMask(past, tokens.length), [tokens.length, past + tokens.length]);
  }
  if (slots.length > 1) feeds.splits = lengths(slots.map((slot) => slot.tokens.length));
  return feeds;
}

/** [length, past + length], 0 where a token sees another and -Infinity where not: all of the past, and up to itself. */
export function causalMask(past: number, length: number): Float32Array {
  const width = past + length;
  const mask = new Float32Array(length * width);
  for (let row = 0; row < length; row++) {
    mask.fill(Number.NEGATIVE_INFINITY, row * width + past + row + 1, (row + 1) * width);
  }
  return mask;
}

/** A token after which the target is to pick. */
export interface Pick {
  /** Index among the run's packed tokens. */
  readonly row: number;
  readonly sampling: SamplingParams;
  /** [D] */
  readonly u: Float32Array;
  readonly adjust?: Adjustment | undefined;
}

/**
 * Feeds of the sampler: rows [R]; temperature, top_k, top_p, min_p [R, 1]; u [R, D]; scale, bias [R, V], or [0, V] where no row has
 * any. At least 2 rows, for the reason given at `padded`.
 *
 * @param dimensions D, uniforms per position
 * @param vocabulary V
 */
export function pickFeeds(picks: readonly Pick[], dimensions: number, vocabulary: number): Feeds {
  const ignored: Pick = { row: 0, sampling: nothingAsked, u: new Float32Array(dimensions) };
  const rows = [...picks, ignored, ignored].slice(0, Math.max(2, picks.length));
  const column = [rows.length, 1];
  return {
    rows: int64(
      rows.map((pick) => pick.row),
      [rows.length],
    ),
    temperature: floats(rows, (pick) => pick.sampling.temperature, column),
    top_k: int64(
      rows.map((pick) => pick.sampling.topK),
      column,
    ),
    top_p: floats(rows, (pick) => pick.sampling.topP, column),
    min_p: floats(rows, (pick) => pick.sampling.minP ?? 0, column),
    u: joined(
      rows.map((pick) => pick.u),
      [rows.length, dimensions],
    ),
    ...adjustFeeds(
      rows.map((pick) => pick.adjust),
      vocabulary,
    ),
  };
}

function adjustFeeds(rows: readonly (Adjustment | undefined)[], vocabulary: number): Feeds {
  const scale = rows.some((row) => row && row.scaled.length > 0) ? rows.length : 0;
  const bias = rows.some((row) => row && (row.biased.length > 0 || row.allowed)) ? rows.length : 0;
  const scales = new Float32Array(scale * vocabulary).fill(1);
  const biases = new Float32Array(bias * vocabulary);
  for (const [i, row] of rows.entries()) {
    for (const id of row?.scaled ?? []) scales[i * vocabulary + id] = row?.scale ?? 1;
    for (const [n, id] of row?.biased.entries() ?? []) biases[i * vocabulary + id] = row?.biases[n] ?? 0;
    if (row?.allowed) forbid(row.allowed, biases.subarray(i * vocabulary, (i + 1) * vocabulary));
  }
  return { scale: float32(scales, [scale, vocabulary]), bias: float32(biases, [bias, vocabulary]) };
}

function forbid(allowed: Uint8Array, biases: Float32Array): void {
  for (let id = 0; id < biases.length; id++) if (!isAllowed(allowed, id)) biases[id] = Number.NEGATIVE_INFINITY;
}

/** How many alternatives the graph is to tell for each row. */
export function topFeeds(count: number): Feeds {
  return { top_count: int64([count], [1]) };
}

/** Conditions of rows and slots whose results nobody reads. */
export const nothingAsked: SamplingParams = { temperature: 0, topK: 0, topP: 1 };

/** One slot's part of a draft. */
export interface DraftPart {
  /** Rows of context that its branches may see: past and new, padding included. */
  readonly context: number;
  readonly sampling: SamplingParams;
  readonly branches: readonly (BranchRequest & {
    /** The token before the branch, at index `visible` - 1. */
    readonly last: number;
  })[];
}

/** What stands in a slot that drafts nothing: the graph wants at least one position. `dimensions`: D, uniforms per position. */
export function idlePart(context: number, dimensions: number): DraftPart {
  return { context, sampling: nothingAsked, branches: [{ visible: 1, u: new Float32Array(dimensions), last: 0 }] };
}

/**
 * Feeds of the M positions to be drafted, slot by slot and branch by branch: u [1, M, D]; upos, last, first, excluded; the conditions;
 * usplits, umask_{i}; and for a sequential head grid and cell (`gridFeeds`), which graphs without one have no input for. See
 * `drafter_graph` in training/src/ptp_train/export/graphs/drafter_graph.py.
 *
 * @param dimensions D, uniforms per position
 */
export function draftFeeds(parts: readonly DraftPart[], dimensions: number): Feeds {
  const branches = parts.flatMap(({ sampling, branches }) => branches.map((branch) => ({ ...branch, sampling })));
  const positions = branches.flatMap((branch) =>
    Array.from({ length: branchLength(branch, dimensions) }, (_, i) => {
      const { visible, last, sampling, excluded = -1 } = branch;
      const first = i === 0;
      return { position: visible - 1 + i, last, first: first ? 1 : 0, excluded: first ? excluded : -1, sampling };
    }),
  );
  const flat = [1, positions.length];
  const column = [1, positions.length, 1];
  const feeds: Feeds = {
    u: joined(
      branches.map(({ u }) => u),
      [1, positions.length, dimensions],
    ),
    upos: int64(
      positions.map((p) => p.position),
      flat,
    ),
    last: int64(
      positions.map((p) => p.last),
      flat,
    ),
    first: floats(positions, (p) => p.first, column),
    excluded: int64(
      positions.map((p) => p.excluded),
      flat,
    ),
    temperature: floats(positions, (p) => p.sampling.temperature, column),
    top_p: floats(positions, (p) => p.sampling.topP, column),
    top_k: floats(positions, (p) => p.sampling.topK, column),
    ...gridFeeds(branches.map((branch) => branchLength(branch, dimensions))),
  };
  for (const [i, part] of parts.entries()) {
    const size = positionsOf(part, dimensions);
    feeds[`umask_${i}`] = float32(branchMask(part, dimensions), [size, part.context + size]);
  }
  if (parts.length > 1) feeds.usplits = lengths(parts.map((part) => positionsOf(part, dimensions)));
  return feeds;
}

/**
 * How a run's M packed positions lie in a grid of W branches by the K positions of the longest, which a sequential head walks row
 * by row: grid [K, W], the index among the M positions of branch b's k-th one, 0 where the branch is shorter; and cell [M], the
 * cell k W + b of each position.
 *
 * @param branchLengths [W] positions of each branch of all slots, in packed order
 */
export function gridFeeds(branchLengths: readonly number[]): Feeds {
  const width = branchLengths.length;
  const depth = Math.max(...branchLengths);
  const grid = new Array<number>(depth * width).fill(0);
  const cell: number[] = [];
  for (const [b, length] of branchLengths.entries()) {
    for (let k = 0; k < length; k++) {
      grid[k * width + b] = cell.length;
      cell.push(k * width + b);
    }
  }
  return { grid: int64(grid, [depth, width]), cell: int64(cell, [cell.length]) };
}

/** Positions that a part drafts, M. */
export function positionsOf({ branches }: DraftPart, dimensions: number): number {
  return branches.reduce((sum, branch) => sum + branchLength(branch, dimensions), 0);
}

/** [M, context + M]: a position sees the first `visible` rows of the context and its own branch up to itself. */
export function branchMask(part: DraftPart, dimensions: number): Float32Array {
  const size = positionsOf(part, dimensions);
  const width = part.context + size;
  const mask = new Float32Array(size * width).fill(Number.NEGATIVE_INFINITY);
  let start = 0;
  for (const branch of part.branches) {
    const length = branchLength(branch, dimensions);
    for (let i = 0; i < length; i++) {
      const row = (start + i) * width;
      mask.fill(0, row, row + branch.visible);
      mask.fill(0, row + part.context + start, row + part.context + start + i + 1);
    }
    start += length;
  }
  return mask;
}

export function floats<T>(items: readonly T[], value: (item: T) => number, dims: readonly number[]): Feed {
  return float32(Float32Array.from(items, value), dims);
}

/** The arrays one after another. */
function joined(arrays: readonly Float32Array[], dims: readonly number[]): Feed {
  const data = new Float32Array(dims.reduce((product, size) => product * size, 1));
  let start = 0;
  for (const array of arrays) {
    data.set(array, start);
    start += array.length;
  }
  return float32(data, dims);
}

export function float32(data: Float32Array, dims: readonly number[]): Feed {
  return { type: 'float32', data, dims };
}

export function int64(values: readonly number[], dims: readonly number[]): Feed {
  return { type: 'int64', data: BigInt64Array.from(values, BigInt), dims };
}

function lengths(values: readonly number[]): Feed {
  return int64(values, [values.length]);
}

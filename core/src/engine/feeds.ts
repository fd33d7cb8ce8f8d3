import type { SamplingParams } from '../sampling/params.ts';
import type { BranchRequest } from './engine.ts';

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

/** Feeds of the packed context tokens: ids, pos, splits, mask_{i}. See `target_graph` in training/src/ptp_train/export.py. */
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
  readonly u: number;
}

/** Feeds of the sampler: rows, temperature, top_k, top_p, u; at least 2 rows, for the reason given at `padded`. */
export function pickFeeds(picks: readonly Pick[]): Feeds {
  const ignored: Pick = { row: 0, sampling: { temperature: 0, topK: 0, topP: 1 }, u: 0 };
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
    u: floats(rows, (pick) => pick.u, column),
  };
}

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

/** What stands in a slot that drafts nothing: the graph wants at least one position. */
export function idlePart(context: number): DraftPart {
  const sampling = { temperature: 0, topK: 0, topP: 1 };
  return { context, sampling, branches: [{ visible: 1, u: new Float32Array(1), last: 0 }] };
}

/**
 * Feeds of the positions to be drafted, slot by slot and branch by branch: u, upos, last, first, the conditions, usplits,
 * umask_{i}. One uniform per position. See `drafter_graph` in training/src/ptp_train/export.py.
 */
export function draftFeeds(parts: readonly DraftPart[]): Feeds {
  const positions = parts.flatMap(({ sampling, branches }) =>
    branches.flatMap(({ visible, u, last }) =>
      Array.from(u, (value, i) => ({ u: value, position: visible - 1 + i, last, first: i === 0 ? 1 : 0, sampling })),
    ),
  );
  const flat = [1, positions.length];
  const column = [1, positions.length, 1];
  const feeds: Feeds = {
    u: floats(positions, (p) => p.u, column),
    upos: int64(
      positions.map((p) => p.position),
      flat,
    ),
    last: int64(
      positions.map((p) => p.last),
      flat,
    ),
    first: floats(positions, (p) => p.first, column),
    temperature: floats(positions, (p) => p.sampling.temperature, column),
    top_p: floats(positions, (p) => p.sampling.topP, column),
    top_k: floats(positions, (p) => p.sampling.topK, column),
  };
  for (const [i, part] of parts.entries()) {
    const size = positionsOf(part);
    feeds[`umask_${i}`] = float32(branchMask(part), [size, part.context + size]);
  }
  if (parts.length > 1) feeds.usplits = lengths(parts.map(positionsOf));
  return feeds;
}

/** Positions that a part drafts, M. */
export function positionsOf({ branches }: DraftPart): number {
  return branches.reduce((sum, { u }) => sum + u.length, 0);
}

/** [M, context + M]: a position sees the first `visible` rows of the context and its own branch up to itself. */
export function branchMask(part: DraftPart): Float32Array {
  const size = positionsOf(part);
  const width = part.context + size;
  const mask = new Float32Array(size * width).fill(Number.NEGATIVE_INFINITY);
  let start = 0;
  for (const { visible, u } of part.branches) {
    for (let i = 0; i < u.length; i++) {
      const row = (start + i) * width;
      mask.fill(0, row, row + visible);
      mask.fill(0, row + part.context + start, row + part.context + start + i + 1);
    }
    start += u.length;
  }
  return mask;
}

function floats<T>(items: readonly T[], value: (item: T) => number, dims: readonly number[]): Feed {
  return float32(Float32Array.from(items, value), dims);
}

export function float32(data: Float32Array, dims: readonly number[]): Feed {
  return { type: 'float32', data, dims };
}

function int64(values: readonly number[], dims: readonly number[]): Feed {
  return { type: 'int64', data: BigInt64Array.from(values, BigInt), dims };
}

function lengths(values: readonly number[]): Feed {
  return int64(values, [values.length]);
}

import type { SamplingParams } from '@ptp/protocol/sampling-params';
import { uniformsAt } from '../sampling/uniforms.ts';
import type { BranchRequest, DraftOutput, DraftSlot } from '../types.ts';
import { type GraphIo, idleDraft, paddedLength, samplingFeeds } from './context-feeds.ts';
import { concatenated, type Feeds, float32, floatResult, floatsOf, int64, intResult, intsOf } from './tensors.ts';

/** Part of a run that drafts the branches of one slot. */
export interface DraftPart {
  /** Number of context rows to which the branches may attend: past and new rows, including padding. */
  readonly context: number;
  readonly sampling: SamplingParams;
  readonly branches: readonly (BranchRequest & {
    /** [L * D] uniforms of the branch. */
    readonly u: Float32Array;
    /** Token before the branch, at index `visible` - 1. */
    readonly last: number;
  })[];
}

/** Branch of a slot that drafts nothing, because the graph needs at least one position per slot. */
const idleBranch: BranchRequest = { visible: 1, length: 1 };

/**
 * Returns the inputs and outputs of a drafter that drafts planned branches.
 *
 * @param dimensions the number of uniforms per position, D
 * @param minRows see `OnnxModel.minRows`
 */
export function branchIo(dimensions: number, minRows: number): GraphIo<DraftSlot, DraftOutput> {
  return {
    idle: idleDraft,
    feeds(slots, cachedTokens) {
      const parts = slots.map((slot) => draftPart(slot, cachedTokens(slot), dimensions, minRows));
      return draftFeeds(parts, dimensions);
    },
    outputs(slots, results) {
      const ids = intResult(results, 'draft');
      const confidences = floatResult(results, 'confidence');
      let end = 0;
      return slots.map((slot) => {
        const branches = slot.branches.map((branch) => {
          const start = end;
          end += branch.length;
          return { tokens: ids.slice(start, end), confidences: confidences.slice(start, end) };
        });
        if (branches.length === 0) end += idleBranch.length;
        return { branches };
      });
    },
  };
}

/**
 * Adds the uniforms of each branch of a slot, and the token before it. This token is either one of the slot's tokens or
 * in the cache.
 */
function draftPart(
  slot: DraftSlot,
  cachedTokens: Int32Array | undefined,
  dimensions: number,
  minRows: number,
): DraftPart {
  const context = slot.at + paddedLength(slot, minRows);
  const requests = slot.branches.length > 0 ? slot.branches : [idleBranch];
  const branches = requests.map((branch) => {
    const index = branch.visible - 1;
    const last = index < slot.at ? cachedTokens?.[index] : slot.tokens[index - slot.at];
    const u = uniformsAt(slot.uniforms, branch.visible, branch.length, dimensions);
    return { ...branch, u, last: last ?? 0 };
  });
  return { context, sampling: slot.sampling, branches };
}

/**
 * Builds the feeds of the M positions to draft, slot by slot and branch by branch: u [1, M, D]; upos, last, first,
 * excluded; the sampling parameters; usplits, umask_{i}; and, for graphs with a sequential head, grid and cell
 * (`gridFeeds`). See `drafter_graph` in training/src/ptp_train/export.
 */
export function draftFeeds(parts: readonly DraftPart[], dimensions: number): Feeds {
  const branches = parts.flatMap(({ sampling, branches }) => branches.map((branch) => ({ ...branch, sampling })));
  const lengths = branches.map(({ length }) => length);
  const positions = branches.flatMap(({ visible, last, sampling, excluded = -1 }, b) =>
    Array.from({ length: lengths[b] ?? 0 }, (_, i) => {
      const first = i === 0;
      return { position: visible - 1 + i, last, first: first ? 1 : 0, excluded: first ? excluded : -1, sampling };
    }),
  );
  const flat = [1, positions.length];
  const column = [1, positions.length, 1];
  const feeds: Feeds = {
    u: concatenated(
      branches.map(({ u }) => u),
      [1, positions.length, dimensions],
    ),
    upos: intsOf(positions, ({ position }) => position, flat),
    last: intsOf(positions, ({ last }) => last, flat),
    first: floatsOf(positions, ({ first }) => first, column),
    excluded: intsOf(positions, ({ excluded }) => excluded, flat),
    ...samplingFeeds(positions, column),
    // Drafter graphs expect top_k as float32.
    top_k: floatsOf(positions, ({ sampling }) => sampling.topK, column),
    ...gridFeeds(lengths),
  };
  const sizes = parts.map(positionsOf);
  for (const [i, part] of parts.entries()) {
    const size = sizes[i] as number;
    feeds[`umask_${i}`] = float32(branchMask(part), [size, part.context + size]);
  }
  if (parts.length > 1) feeds.usplits = int64(sizes);
  return feeds;
}

/**
 * Arranges the M packed positions of a run in a grid, which a sequential head walks row by row. The grid has one column
 * for each of the W branches and one row for each of the K positions of the longest branch. `grid` [K, W] contains the
 * packed index of position k of branch b, or 0 if the branch is shorter; `cell` [M] contains the cell k W + b of each
 * position.
 *
 * @param branchLengths [W] number of positions of each branch, for all slots in packed order
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
  return { grid: int64(grid, [depth, width]), cell: int64(cell) };
}

/** Returns M, the number of positions that a part drafts. */
export function positionsOf({ branches }: DraftPart): number {
  return branches.reduce((sum, { length }) => sum + length, 0);
}

/** Builds the mask [M, context + M]: a position attends to `visible` context rows and to its branch up to itself. */
export function branchMask(part: DraftPart): Float32Array {
  const size = positionsOf(part);
  const width = part.context + size;
  const mask = new Float32Array(size * width).fill(Number.NEGATIVE_INFINITY);
  let start = 0;
  for (const { visible, length } of part.branches) {
    for (let i = 0; i < length; i++) {
      const row = (start + i) * width;
      mask.fill(0, row, row + visible);
      mask.fill(0, row + part.context + start, row + part.context + start + i + 1);
    }
    start += length;
  }
  return mask;
}

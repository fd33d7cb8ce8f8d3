import { uniformsAt } from '../sampling/uniforms.ts';
import type { BlockCheck, DraftOutput, DraftSlot } from '../types.ts';
import { type GraphIo, idleDraft, paddedLength, samplingFeeds } from './context-feeds.ts';
import { type Feeds, float32, floatResult, int64, intResult, intsOf } from './tensors.ts';

/** Part of a run that checks the block of one slot. */
export interface CheckPart extends BlockCheck, Pick<DraftSlot, 'at' | 'tokens' | 'sampling'> {
  /** [(block + L) * D] uniforms from the block's first token on. */
  readonly u: Float32Array;
}

/** Check for a slot that drafts nothing, because the graph drafts at least one token for each slot. */
const idleCheck: BlockCheck = { block: 0, length: 1 };

/**
 * Returns the inputs and outputs of a drafter that checks blocks.
 *
 * @param dimensions the number of uniforms per position, D
 * @param minRows see `OnnxModel.minRows`
 */
export function checkIo(dimensions: number, minRows: number): GraphIo<DraftSlot, DraftOutput> {
  return {
    idle: idleDraft,
    feeds: (slots) =>
      checkFeeds(
        slots.map((slot) => checkPart(slot, dimensions)),
        dimensions,
        minRows,
      ),
    outputs(slots, results) {
      const accepted = intResult(results, 'accepted');
      const first = intResult(results, 'given');
      const ids = intResult(results, 'draft');
      const confidences = floatResult(results, 'confidence');
      const steps = ids.length / first.length;
      return slots.map(({ check }, i) => {
        if (!check) return { branches: [] };
        const [start, end] = [i * steps, i * steps + check.length - 1];
        const branch = {
          accepted: accepted[i] ?? 0,
          tokens: Int32Array.of(first[i] ?? 0, ...ids.subarray(start, end)),
          // The first token is the target's own token, apart from rounding in the drafter's copy of the target.
          confidences: Float32Array.of(1, ...confidences.subarray(start, end)),
        };
        return { branches: [branch] };
      });
    },
  };
}

function checkPart({ at, tokens, sampling, uniforms, check = idleCheck }: DraftSlot, dimensions: number): CheckPart {
  const { block, length } = check;
  const u = uniformsAt(uniforms, at + tokens.length - block, block + length, dimensions);
  return { at, tokens, sampling, block, length, u };
}

/**
 * Builds the feeds for the check and for the drafting that follows it: check_rows, check_tokens [B, C]; visible [B, 1];
 * uniforms [B, C + K, D]; steps [1]; the sampling parameters [B, 1]. See `feature_graph` in
 * training/src/ptp_train/export.
 */
export function checkFeeds(parts: readonly CheckPart[], dimensions: number, minRows: number): Feeds {
  const columns = 1 + Math.max(...parts.map(({ block }) => block));
  // The check already yields the first drafted token.
  const steps = Math.max(1, ...parts.map(({ length }) => length - 1));
  const rows: number[] = [];
  const tokens: number[] = [];
  const width = (columns + steps) * dimensions;
  const uniforms = new Float32Array(parts.length * width);
  let start = 0;
  for (const [i, part] of parts.entries()) {
    const { tokens: own, block, u } = part;
    const before = start + own.length - block - 1;
    for (let k = 0; k < columns; k++) {
      rows.push(before + Math.min(k, block));
      tokens.push(k < block ? (own[own.length - block + k] as number) : -1);
    }
    uniforms.set(u, i * width);
    start += paddedLength(part, minRows);
  }
  const table = [parts.length, columns];
  const column = [parts.length, 1];
  return {
    check_rows: int64(rows, table),
    check_tokens: int64(tokens, table),
    visible: intsOf(parts, ({ at, tokens: own, block }) => at + own.length - block, column),
    uniforms: float32(uniforms, [parts.length, columns + steps, dimensions]),
    steps: int64([steps]),
    ...samplingFeeds(parts, column, 'sampling.'),
  };
}

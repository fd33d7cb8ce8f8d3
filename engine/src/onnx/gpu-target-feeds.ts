import type { TargetOutput, TargetSlot } from '../types.ts';
import { type GraphIo, idleContext } from './context-feeds.ts';
import { DeviceError } from './device-error.ts';
import { mostTops, pickFeeds, picksOf, targetOutputs } from './target-feeds.ts';
import { type Feed, type Feeds, float32, floatResult, int64, type Results } from './tensors.ts';

/** Number of most probable tokens in which top-p looks first. */
const NEAREST = 64;
/** Columns of `picked` before the most probable tokens: token, log-probability and MARK. */
const COLUMNS = 3;
/** Column with the number of the run, which is even, plus 1 if top-p needs more tokens. */
const MARK = 2;
/** Maximum number of a run. float32 represents all integers up to 2^24. */
const LAST_RUN = 2 ** 24 - 2;

/** Does the same as `targetIo` for graphs of `gpu_target_graph`, which have one path and one output for all rows. */
export function gpuTargetIo(
  dimensions: number,
  vocabulary: number,
  minRows: number,
): GraphIo<TargetSlot, TargetOutput> {
  let [run, nearest] = [0, 0];
  const nextRun = () => {
    run = run < LAST_RUN ? run + 2 : 2;
    return float32(Float32Array.of(run), [1, 1]);
  };
  return {
    idle: idleContext,
    feeds(slots) {
      nearest = nearestOf(slots, vocabulary);
      const picks = picksOf(slots, dimensions, minRows);
      const feeds = pickFeeds(picks, dimensions, vocabulary);
      return {
        ...feeds,
        top_k: asFloats(feeds.top_k as Feed),
        scale: orNeutral(feeds.scale as Feed, 1),
        bias: orNeutral(feeds.bias as Feed, 0),
        ...nearestFeeds(nearest),
        top_count: int64([topsOf(slots)]),
        run: nextRun(),
      };
    },
    repeat(slots, results) {
      const { picked, width } = columns(slots, results);
      const marks = picked.filter((_, i) => i % width === MARK).map((mark) => mark - run);
      if (marks.some((mark) => mark !== 0 && mark !== 1))
        throw new DeviceError('the GPU has lost the results of a run');
      if (!marks.includes(1) || nearest === vocabulary) return undefined;
      nearest = vocabulary;
      return { ...nearestFeeds(nearest), run: nextRun() };
    },
    outputs: (slots, results) => targetOutputs(slots, unpacked(slots, results)),
  };
}

/** Returns the number of most probable tokens to which the run applies top-k and top-p. */
function nearestOf(slots: readonly TargetSlot[], vocabulary: number): number {
  const counts = slots.map(({ sampling }) => {
    if (!sampling || sampling.temperature === 0) return 1;
    return sampling.topK || (sampling.topP < 1 ? NEAREST : 1);
  });
  return Math.min(Math.max(...counts), vocabulary);
}

function nearestFeeds(count: number): Feeds {
  return {
    nearest: int64([count]),
    rank: float32(
      Float32Array.from({ length: count }, (_, i) => i),
      [1, count],
    ),
  };
}

/** Converts the limits of top-k, because WebGPU does not compute with int64. */
function asFloats({ data, dims }: Feed): Feed {
  return float32(Float32Array.from(data as BigInt64Array, Number), dims);
}

/** Returns the feed or, if it has no rows, one element that changes no logit. */
function orNeutral(feed: Feed, neutral: number): Feed {
  return feed.dims[0] === 0 ? float32(Float32Array.of(neutral), [1, 1]) : feed;
}

/** Returns the number of most probable tokens in the output, at least 1 because WebGPU has no empty tensors. */
function topsOf(slots: readonly TargetSlot[]): number {
  return Math.max(1, mostTops(slots));
}

function columns(slots: readonly TargetSlot[], results: Results): { picked: Float32Array; width: number } {
  return { picked: floatResult(results, 'picked'), width: COLUMNS + 2 * topsOf(slots) };
}

/** Returns the outputs of a graph of `target_graph`. */
function unpacked(slots: readonly TargetSlot[], results: Results): Results {
  const tops = topsOf(slots);
  const { picked, width } = columns(slots, results);
  const select = (start: number, end: number) => ({
    data: picked.filter((_, i) => i % width >= start && i % width < end),
  });
  return {
    pick: select(0, 1),
    logprob: select(1, 2),
    top_logprob: select(COLUMNS, COLUMNS + tops),
    top_id: select(COLUMNS + tops, width),
  };
}

import type { SamplingParams } from '@ptp/protocol/sampling-params';
import type { Adjustment } from './sampling/adjust.ts';

/**
 * What a service asks of a model, and nothing else. The ONNX engine (onnx-engine.ts) is the embedded one; fake-engine.ts
 * stands in where a real model would hide what a test looks at. GPU and remote engines come behind the same interface.
 *
 * An engine owns the key/value caches. A sequence's cache is an array of rows, one per token; a run writes the rows of the
 * tokens it is given from `at` on. Rolling back is starting the next run at an earlier `at`: rows beyond it are dead.
 */

/** Handle of one sequence's cache inside an engine. */
export type SequenceId = number;

/** What every engine can be opened with. */
export interface EngineOptions {
  /** The model folder: `manifest.json` and the files that it lists. */
  readonly dir: string;
  /** Threads of one run, 1 by default. Results do not depend on it. */
  readonly threads?: number;
  /** Bytes of keys and values to keep from closed sequences, for prompts that begin alike; 0, none, by default. */
  readonly prefixCacheBytes?: number;
}

/** Facts that an engine reads from the model's manifest. */
export interface EngineInfo {
  /** Token ids are 0 .. vocabulary - 1. */
  readonly vocabulary: number;
  /** Longest sequence in tokens. */
  readonly contextLength: number;
  /** D, uniforms per position. */
  readonly uniformsPerPosition: number;
  /** Most sequences in one run. */
  readonly maxSlots: number;
  /** Bytes of cache that one token takes. */
  readonly bytesPerToken: number;
}

/** State of a prefix cache. */
export interface PrefixCacheUsage {
  /** Closed sequences whose rows are kept. */
  readonly sequences: number;
  /** Bytes allocated for these. */
  readonly bytes: number;
  /** Calls of `reusePrefix`. */
  readonly lookups: number;
  /** Calls that found something. */
  readonly hits: number;
  /** Rows that were taken over. */
  readonly reusedTokens: number;
}

/** What both kinds of engine do with caches. */
export interface Engine {
  readonly info: EngineInfo;
  /** Reserves a cache for a sequence of at most `info.contextLength` tokens; memory grows with the rows written. */
  open(): SequenceId;
  /**
   * Fills the cache of a sequence that has no rows yet with those of the longest beginning of `tokens` that another sequence
   * holds, open or closed (prefix-cache.ts). Resolves with how many rows hold now, 0 .. tokens.length; runs go on from there.
   */
  reusePrefix(sequence: SequenceId, tokens: readonly number[]): Promise<number>;
  /** Ends it; unknown ids are ignored. A run in flight is finished first. Its rows may stay in the prefix cache for a while. */
  close(sequence: SequenceId): void;
  /** Open sequences and the bytes that their caches hold. */
  usage(): { sequences: number; cacheBytes: number };
  /** What the prefix cache holds, and what it has been good for since the start. */
  prefixCache(): PrefixCacheUsage;
  /** Resolves with the reason if the engine dies by itself; every run fails from then on, so its process should end. */
  readonly died: Promise<Error>;
  /** Stops the engine; runs in flight fail with `unavailable`. */
  dispose(): Promise<void>;
}

/** One sequence's part of a target run. */
export interface TargetSlot {
  readonly sequence: SequenceId;
  /** Cache rows that hold: the tokens are written from row `at` on, and see rows 0 .. at - 1. */
  readonly at: number;
  /** Token ids, T >= 1. The engine pads to 2 by itself (batch invariance); the padding's row is dead. */
  readonly tokens: readonly number[];
  /** Sampling at every token; absent while a prompt is read, when no picks are wanted. */
  readonly sampling?: SamplingParams;
  /** [T * D] uniforms; u for the token that FOLLOWS tokens[i] is at i * D. Required with `sampling`. */
  readonly u?: Float32Array;
  /** [T] what changes about the logits after each token; nothing unless given. */
  readonly adjust?: readonly Adjustment[];
  /** Alternatives to tell for each pick, 0 unless given. */
  readonly topCount?: number;
}

/** One sequence's part of the answer; empty arrays where the slot had no `sampling`. */
export interface TargetOutput {
  /** [T] the token that the target picks after each of the slot's tokens. */
  readonly picks: Int32Array;
  /** [T] natural log of its probability under the unshaped model. */
  readonly logProbabilities: Float32Array;
  /** [T * topCount] the most probable tokens under the unshaped model and the logs of their probabilities, falling; if asked for. */
  readonly topIds?: Int32Array;
  readonly topLogProbabilities?: Float32Array;
}

/** Answer of a run with how long the engine took. */
export interface RunResult<Output> {
  /** One per slot, in order. */
  readonly outputs: Output[];
  /** Microseconds inside the engine. */
  readonly runMicros: number;
}

export interface TargetEngine extends Engine {
  /** Runs 1 .. maxSlots slots of distinct sequences together. Results do not depend on what else is in the run. */
  run(slots: readonly TargetSlot[]): Promise<RunResult<TargetOutput>>;
}

/** One continuation to be drafted. */
export interface BranchRequest {
  /** How many cache rows it sees, counting the slot's own tokens: at .. at + T, at least 1. */
  readonly visible: number;
  /** [L * D] uniforms of the positions to be drafted; the first predicts the token at sequence index `visible`. L >= 1. */
  readonly u: Float32Array;
  /** A token that the first one is known not to be: what was drafted there before and did not come true. */
  readonly excluded?: number;
}

/** L, positions of a branch whose positions have `dimensions` uniforms each. */
export function branchLength({ u }: BranchRequest, dimensions: number): number {
  return u.length / dimensions;
}

/** What an engine that checks blocks is asked: to go on from where the block under verification will turn out to be wrong. */
export interface BlockCheck {
  /** How many of the slot's last tokens are the block, 0 .. T - 1: what stands before it has to be in the run. */
  readonly block: number;
  /** [(block + L) * D] the uniforms from the block's first token on: L >= 1 tokens are drafted after those that are right. */
  readonly u: Float32Array;
}

/** L, tokens that a check is to draft. */
export function checkedLength({ block, u }: BlockCheck, dimensions: number): number {
  return u.length / dimensions - block;
}

/** One sequence's part of a draft run. */
export interface DraftSlot {
  readonly sequence: SequenceId;
  readonly at: number;
  /** Context tokens to be written from row `at` on, T >= 1 (re-send the last one when there is no new one). */
  readonly tokens: readonly number[];
  readonly sampling: SamplingParams;
  /** Empty while a prompt is read, and for an engine that checks blocks. */
  readonly branches: readonly BranchRequest[];
  /** For an engine that checks blocks; absent while a prompt is read. */
  readonly check?: BlockCheck;
}

/** A drafted continuation. */
export interface DraftedBranch {
  readonly tokens: Int32Array;
  readonly confidences: Float32Array;
  /** Tokens of the block that it takes for right; of a check. */
  readonly accepted?: number;
}

/** One sequence's part of the answer. */
export interface DraftOutput {
  /** One per branch, in order; one for a check. */
  readonly branches: DraftedBranch[];
}

export interface DraftEngine extends Engine {
  /**
   * Whether it runs the whole target over its context, and so finds by itself how much of a block under verification is right: slots
   * have a `check` in place of branches, and the answer is the one branch that is expected to fit.
   */
  readonly checksBlocks: boolean;
  /** Longest branch that the drafter was trained for. */
  readonly maxBranchLength: number;
  /** H in docs/ptp.md: yieldCurve[b] is the expected number of correct tokens of a branch of b, measured on held-out text. */
  readonly yieldCurve: readonly number[];
  /** The same of branches whose first token is where a draft went wrong, told so by `excluded`. */
  readonly yieldCurveAfterMiss: readonly number[];
  run(slots: readonly DraftSlot[]): Promise<RunResult<DraftOutput>>;
}

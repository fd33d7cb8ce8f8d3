import type { SamplingParams } from '@ptp/protocol/sampling-params';
import type { Adjustment } from './sampling/adjust.ts';

/**
 * The interface between the services and a model. The services validate, schedule and accept; an engine owns the
 * key/value caches and runs slots. Implementations: `onnx/`, `llama-cpp/`, and `testing/fake-engine.ts` for
 * tests. `EngineBase` has the bookkeeping that they share.
 *
 * A sequence's cache is an array of rows, one per token. A run writes the rows of a slot's tokens from row `at` on. To
 * roll back, start the next run at an earlier `at`: the rows from there on are dead. For example, verify a draft of two
 * tokens after the prompt [7, 8, 9], where u holds the uniforms of one position (D = 1) per token:
 *
 *     const sequence = engine.open();
 *     await engine.run([{ sequence, at: 0, tokens: [7, 8] }]);                                    // prefill: rows 0, 1
 *     const { outputs } = await engine.run([{ sequence, at: 2, tokens: [9, 4, 5], sampling, u }]); // rows 2, 3, 4
 *     // picks = [4, 6, 1]: 4 was right, 5 should have been 6. Row 4 is the rejected 5; the next run overwrites it.
 *     await engine.run([{ sequence, at: 4, tokens: [6], sampling, u: next }]);                     // row 4 again
 *     engine.close(sequence);
 *
 * Errors are PtpErrors: `not_found` for a sequence that is not open, `out_of_range` beyond the context,
 * `invalid_argument` for other invalid slots (validate-slots.ts), `internal` for a run that failed, `unavailable` once
 * the engine has ended. After a failed run, the rows before each slot's `at` stay valid.
 */
export interface Engine {
  readonly info: EngineInfo;
  /** Opens a sequence of at most `info.contextLength` tokens, without rows. Memory grows with the rows written. */
  open(): SequenceId;
  /**
   * Fills an empty sequence with the rows of the longest prefix of `tokens` that another sequence holds, open or
   * closed.
   *
   * @returns number of valid rows, 0 .. tokens.length; the next run starts there or earlier. 0 is always correct.
   */
  reusePrefix(sequence: SequenceId, tokens: readonly number[]): Promise<number>;
  /** Closes a sequence; ignores unknown ids. A run in flight finishes first. The prefix cache may keep the rows. */
  close(sequence: SequenceId): void;
  /** Open sequences, and the bytes that their caches take. */
  usage(): { sequences: number; cacheBytes: number };
  /** Contents of the prefix cache, and counts since the start. */
  prefixCache(): PrefixCacheUsage;
  /** Resolves with the reason if the engine dies. All runs fail from then on, so the process should end. */
  readonly died: Promise<Error>;
  /** Stops the engine; runs in flight fail with `unavailable`. */
  dispose(): Promise<void>;
}

/** Handle of one sequence's cache inside an engine. */
export type SequenceId = number;

/** Options common to all engines. */
export interface EngineOptions {
  /** The model folder: `manifest.json` and the files that it lists; or the path of a GGUF file. */
  readonly dir: string;
  /** Threads of one run, 1 by default. Results do not depend on it. */
  readonly threads?: number;
  /** Bytes of keys and values to keep from closed sequences, for prompts with the same prefix; 0, none, by default. */
  readonly prefixCacheBytes?: number;
  /** Longest sequence in tokens, at most the model's own; `loadManifest` says what 0, the default, means. */
  readonly contextLength?: number;
  /** Layers on the GPU; only for llama.cpp, as many as fit by default. */
  readonly gpuLayers?: number;
  /** Sequences open at once; only for llama.cpp, which allocates all their caches at the start, 8 by default. */
  readonly sequences?: number;
}

/** Properties of the loaded model. */
export interface EngineInfo {
  /** V; token ids are 0 .. V - 1. */
  readonly vocabulary: number;
  /** Longest sequence in tokens. */
  readonly contextLength: number;
  /** D, uniforms per position. */
  readonly uniformsPerPosition: number;
  /** Most slots in one run. */
  readonly maxSlots: number;
  /** Bytes of cache per token. */
  readonly bytesPerToken: number;
}

/** State of a prefix cache. */
export interface PrefixCacheUsage {
  /** Closed sequences whose rows are kept. */
  readonly sequences: number;
  /** Bytes allocated for them. */
  readonly bytes: number;
  /** Calls of `reusePrefix`. */
  readonly lookups: number;
  /** Lookups that found rows. */
  readonly hits: number;
  /** Rows copied. */
  readonly reusedTokens: number;
}

/** The part of a slot that both kinds of engine share: tokens to write into a sequence's cache. */
export interface ContextSlot {
  readonly sequence: SequenceId;
  /**
   * First row to write; the tokens attend to rows 0 .. at - 1 and to those before them in the slot. At most the number
   * of valid rows.
   */
  readonly at: number;
  /** [T] token ids, T >= 1. */
  readonly tokens: readonly number[];
}

/** Result of a run. */
export interface RunResult<Output> {
  /** One per slot, in order. */
  readonly outputs: Output[];
  /** Microseconds inside the engine. */
  readonly runMicros: number;
}

/** A language model that picks tokens. */
export interface TargetEngine extends Engine {
  /**
   * Runs 1 .. maxSlots slots of distinct sequences together. Results must not depend on the other slots
   * (batch-invariance.ts).
   */
  run(slots: readonly TargetSlot[]): Promise<RunResult<TargetOutput>>;
}

/** One sequence's part of a target run. */
export interface TargetSlot extends ContextSlot {
  /** Sampling after every token; absent in prefill, which picks nothing. */
  readonly sampling?: SamplingParams;
  /** [T * D] uniforms, required with `sampling`: those at i * D pick the token that FOLLOWS tokens[i]. */
  readonly u?: Float32Array;
  /** [T] changes to the logits after each token; none by default. */
  readonly adjust?: readonly Adjustment[];
  /** Alternatives to return for each pick, 0 by default. */
  readonly topCount?: number;
}

/** Picks of one slot; empty arrays if it had no `sampling`. */
export interface TargetOutput {
  /** [T] the token that the target picks after each of the slot's tokens. */
  readonly picks: Int32Array;
  /** [T] natural log of each pick's probability under the unshaped model. */
  readonly logProbabilities: Float32Array;
  /** Some pick had to leave out less probable tokens because the engine reads only the most probable ones. */
  readonly truncated?: boolean;
  /** [T * topCount] the most probable tokens under the unshaped model, descending; absent if topCount is 0. */
  readonly topIds?: Int32Array;
  /** [T * topCount] natural logs of their probabilities. */
  readonly topLogProbabilities?: Float32Array;
}

/** A model that proposes tokens. There are two kinds, which `checksBlocks` distinguishes. */
export interface DraftEngine extends Engine {
  /**
   * False: drafts the `branches` that the caller plans, one for each likely outcome of the verification in progress.
   * True: predicts that outcome itself, by running the target's own layers or a whole draft model over the block, so
   * that its slots have a `check` and its outputs a single branch.
   */
  readonly checksBlocks: boolean;
  /** Longest branch in tokens. */
  readonly maxBranchLength: number;
  /**
   * [maxBranchLength + 1] H in docs/ptp.md: expected number of correct tokens in a branch of b, measured on held-out
   * text.
   */
  readonly yieldCurve: readonly number[];
  /** The same for branches that start at a wrong token of the block and have `excluded`. */
  readonly yieldCurveAfterMiss: readonly number[];
  /** Runs 1 .. maxSlots slots of distinct sequences together. */
  run(slots: readonly DraftSlot[]): Promise<RunResult<DraftOutput>>;
}

/** One sequence's part of a draft run. A slot without new tokens sends the last one again. */
export interface DraftSlot extends ContextSlot {
  readonly sampling: SamplingParams;
  /** Empty in prefill and for engines that check blocks. */
  readonly branches: readonly BranchRequest[];
  /** Only for engines that check blocks; absent in prefill. */
  readonly check?: BlockCheck;
}

/** One continuation to draft. */
export interface BranchRequest {
  /** Cache rows that it attends to, counting the slot's own: at .. at + T, at least 1. */
  readonly visible: number;
  /** [L * D] uniforms of the positions to draft, L >= 1; the first predicts the token at sequence index `visible`. */
  readonly u: Float32Array;
  /** Token that the first one is known not to be: the rejected draft at this position. */
  readonly excluded?: number;
}

/** Asks an engine to find the first wrong token of a block under verification and to draft on from there. */
export interface BlockCheck {
  /**
   * Length of the block, 0 .. T - 1; it is the end of the slot's tokens, and the token before it must be in the run.
   */
  readonly block: number;
  /** [(block + L) * D] uniforms from the block's first token on; L >= 1 tokens are drafted after the correct ones. */
  readonly u: Float32Array;
}

/** One sequence's drafts. */
export interface DraftOutput {
  /** One per requested branch, in order; exactly one for a check. */
  readonly branches: DraftedBranch[];
}

/** A drafted continuation. */
export interface DraftedBranch {
  /** [L] */
  readonly tokens: Int32Array;
  /** [L] probability that each token is right if those before it are. */
  readonly confidences: Float32Array;
  /** Length of the block's correct beginning, as the engine predicts it; only for a check. */
  readonly accepted?: number;
}

/** L, the number of positions in a branch. */
export function branchLength({ u }: BranchRequest, dimensions: number): number {
  return u.length / dimensions;
}

/** L, the number of tokens that a check drafts. */
export function checkedLength({ block, u }: BlockCheck, dimensions: number): number {
  return u.length / dimensions - block;
}

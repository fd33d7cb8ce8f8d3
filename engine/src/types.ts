import type { SamplingParams } from '@ptp/protocol/sampling-params';
import type { Logger } from '@ptp/service-kit/log';
import type { Adjustment } from './sampling/adjust.ts';
import type { UniformSource } from './sampling/uniforms.ts';

/**
 * Interface between the services and a model. The services validate, schedule and accept. An engine owns the KV caches
 * and runs slots. There are five implementations: `onnx/`, `llama-cpp/`, `sglang/`, `remote/` for an engine in another
 * process, and `testing/fake-engine.ts` for tests. `EngineBase` contains their common bookkeeping.
 *
 * The cache of a sequence is an array of rows, one per token. A run writes the rows of a slot's tokens, starting at row
 * `at`. To roll back, start the next run at an earlier row; the run overwrites the rows from there on. The following
 * example verifies a draft of two tokens after the prompt [7, 8, 9]. The first generated token has the index 3 and the
 * position 0, so the offset is -3:
 *
 *     const sequence = engine.open();
 *     await engine.run([{ sequence, at: 0, tokens: [7, 8] }]);                                   // prefill: rows 0, 1
 *     const picking = { sampling, uniforms: { seed: 1n, offset: -3 } };
 *     const { outputs } = await engine.run([{ sequence, at: 2, tokens: [9, 4, 5], ...picking }]); // rows 2, 3, 4
 *     // picks = [4, 6, 1]: 4 is accepted, 5 is rejected for 6. The next run overwrites row 4, which holds 5.
 *     await engine.run([{ sequence, at: 4, tokens: [6], ...picking }]);                           // row 4 again
 *     engine.close(sequence);
 *
 * Errors are PtpErrors: `not_found` for a sequence that is not open, `out_of_range` for a slot beyond the context,
 * `invalid_argument` for other invalid slots (validate-slots.ts), `internal` for a run that failed, `unavailable` after
 * the engine has ended. After a failed run, the rows before each slot's `at` remain valid.
 */
export interface Engine {
  readonly info: EngineInfo;
  /**
   * Opens an empty sequence, which can hold up to `info.contextLength` tokens. Its memory use grows with each token.
   *
   * @throws PtpError `resource_exhausted` if `info.maxSequences` sequences are open
   */
  open(): SequenceId;
  /**
   * Fills an empty sequence with the rows of the longest prefix of `tokens` that another open or closed sequence holds.
   *
   * @returns number of valid rows, in [0, tokens.length]. An engine may always return 0.
   */
  reusePrefix(sequence: SequenceId, tokens: readonly number[]): Promise<number>;
  /** Closes a sequence after any run in flight. Ignores unknown ids. The prefix cache may keep the rows. */
  close(sequence: SequenceId): void;
  /** Returns the number of open sequences and the size of their caches in bytes. */
  usage(): { sequences: number; cacheBytes: number };
  /** Returns the contents of the prefix cache, and counts since startup. */
  prefixCache(): PrefixCacheUsage;
  /** Resolves with the reason if the engine dies. All later runs fail, so the process should end. */
  readonly died: Promise<Error>;
  /** Stops the engine. Runs in flight fail with `unavailable`. */
  dispose(): Promise<void>;
}

/** Handle of one sequence's cache inside an engine. */
export type SequenceId = number;

export interface EngineOptions {
  /** Path of a GGUF file, or of a model folder, which contains `manifest.json` and the files that it lists. */
  readonly dir: string;
  /** Number of CPU threads for one run. Default (0): one thread for ONNX, and one per physical core for llama.cpp. */
  readonly threads?: number;
  /** Maximum size of the prefix cache in bytes. Default: 0, which disables the cache. */
  readonly prefixCacheBytes?: number;
  /**
   * Maximum length of a sequence in tokens, at most the context length of the model. `loadManifest` documents the
   * default of 0.
   */
  readonly contextLength?: number;
  /** Number of layers on the GPU, for llama.cpp only. Default (`auto`): as many as fit. */
  readonly gpuLayers?: number | 'auto';
  /** Processor of a model folder, for ONNX Runtime only: `PTP_DEVICE` in service-settings.ts. Default: `cpu`. */
  readonly device?: 'cpu' | 'webgpu' | 'auto';
  /**
   * Maximum number of open sequences. Only for llama.cpp, which allocates all caches at startup. Default (0): as many
   * as fit in memory.
   */
  readonly sequences?: number;
  /**
   * Address of an engine in another process, `host:port` or `unix:/path`, or the URLs of SGLang servers, separated by
   * commas. `dir` is then the same model.
   */
  readonly address?: string;
  /** Logger for progress and warnings during the start. */
  readonly logger?: Pick<Logger, 'info' | 'warn'>;
}

export interface EngineInfo {
  /** V, the number of token ids. The ids are in [0, V - 1]. */
  readonly vocabulary: number;
  /** Maximum length of a sequence in tokens. */
  readonly contextLength: number;
  /** D, the number of uniforms per position. */
  readonly uniformsPerPosition: number;
  /** Maximum number of slots in one run. */
  readonly maxSlots: number;
  /** Maximum number of open sequences. Infinite if only memory limits it. */
  readonly maxSequences: number;
  /** Size of a cache row in bytes. */
  readonly bytesPerToken: number;
  /** Maximum number of prompt tokens in one run, if it is not the one in model-service.ts. */
  readonly prefillChunk?: number;
  /** Name of the engine, if it is not the one in the model's manifest. */
  readonly engine?: string;
  /** Number of most probable tokens that a request without top-k samples from, if the manifest does not have it. */
  readonly candidateLimit?: number;
  /** True if the engine has no logits that `Adjustment.scale` could scale. */
  readonly rejectsRepetitionPenalty?: boolean;
  /**
   * Everything on which the bits of the results depend, apart from the CPU and Node's version, as JSON: the model's
   * files, the runtime and the options. Absent if the results depend on more, such as a GPU's driver.
   */
  readonly fingerprint?: readonly unknown[];
  /** Processor that runs the model, such as `cpu`. Absent if the engine does not report it. */
  readonly device?: string;
  /** Number of CPU threads. Absent if the engine does not report it. */
  readonly threads?: number;
  /** Number format of the weights, such as bfloat16. Absent if it is the one in the model's manifest. */
  readonly quantization?: string;
}

export interface PrefixCacheUsage {
  /** Number of closed sequences whose rows are kept. */
  readonly sequences: number;
  /** Size of the kept rows in bytes. */
  readonly bytes: number;
  /** Number of calls of `reusePrefix`. */
  readonly lookups: number;
  /** Number of lookups that found rows. */
  readonly hits: number;
  /** Number of rows reused. */
  readonly reusedTokens: number;
  /** Number of rows that the cache had no room for. Absent if the engine does not count them. */
  readonly droppedTokens?: number;
}

/** Part of a slot that both kinds of engine share: tokens to write into the cache of a sequence. */
export interface ContextSlot {
  readonly sequence: SequenceId;
  /** First row to write, at most the number of valid rows. Tokens attend to all earlier rows. */
  readonly at: number;
  /** [T] token ids, T >= 1. */
  readonly tokens: readonly number[];
}

export interface RunResult<Output> {
  /** One output per slot, in the order of the slots. */
  readonly outputs: Output[];
  /** Duration of the run in microseconds. */
  readonly runMicros: number;
}

/** Language model that picks tokens. */
export interface TargetEngine extends Engine {
  /** Runs 1 to maxSlots slots of distinct sequences. No result may depend on the other slots (batch-invariance.ts). */
  run(slots: readonly TargetSlot[]): Promise<RunResult<TargetOutput>>;
}

/** One sequence's part of a target run. */
export interface TargetSlot extends ContextSlot {
  /** Sampling parameters for a pick after every token. Absent in prefill, which picks nothing. */
  readonly sampling?: SamplingParams;
  /** Source of the uniforms, required with `sampling`. The token after tokens[i] has the sequence index at + i + 1. */
  readonly uniforms?: UniformSource;
  /** [T] adjustments of the logits after each token. Default: none. */
  readonly adjust?: readonly Adjustment[];
  /** Number of alternatives to return for each pick. Default: 0. */
  readonly topCount?: number;
  /**
   * True if log-probabilities may be relative to the tokens that the engine reads. Exact log-probabilities can take
   * longer.
   */
  readonly roughScores?: boolean;
}

/** Picks of one slot. The arrays are empty if the slot has no `sampling`. */
export interface TargetOutput {
  /** [T] token that the target picks after each of the slot's tokens. */
  readonly picks: Int32Array;
  /**
   * [T] natural logarithm of each pick's probability before temperature, top-k, top-p and min-p. An estimate if the
   * slot has `roughScores`.
   */
  readonly logProbabilities: Float32Array;
  /** True if a pick ignored improbable tokens, because the engine reads only the most probable logits. */
  readonly truncated?: boolean;
  /** [T * topCount] most probable tokens in descending order. Absent if topCount is 0. */
  readonly topIds?: Int32Array;
  /** [T * topCount] natural logarithms of the probabilities of `topIds`. */
  readonly topLogProbabilities?: Float32Array;
}

/** Model that proposes tokens. */
export interface DraftEngine extends Engine {
  /**
   * If false, the engine drafts the `branches` that the caller plans, one for each likely outcome of the verification
   * in progress. If true, the engine predicts this outcome by running the target's layers or a whole draft model over
   * the block; its slots then have a `check`, and its outputs a single branch.
   */
  readonly checksBlocks: boolean;
  /** Maximum length of a branch in tokens. */
  readonly maxBranchLength: number;
  /** [maxBranchLength + 1] expected number of correct tokens by branch length, on held-out text: H in docs/ptp.md. */
  readonly yieldCurve: readonly number[];
  /** Yield curve for branches with `excluded`, which start where the block has a wrong token. */
  readonly yieldCurveAfterMiss: readonly number[];
  /** Runs 1 to maxSlots slots of distinct sequences. */
  run(slots: readonly DraftSlot[]): Promise<RunResult<DraftOutput>>;
}

/** One sequence's part of a draft run. If there are no new tokens, the slot contains the last token again. */
export interface DraftSlot extends ContextSlot {
  readonly sampling: SamplingParams;
  readonly uniforms: UniformSource;
  /** Requested branches. Empty in prefill and for engines that check blocks. */
  readonly branches: readonly BranchRequest[];
  /** Requested check. Only for engines that check blocks, and absent in prefill. */
  readonly check?: BlockCheck;
}

/** Request for one continuation. */
export interface BranchRequest {
  /**
   * Number of cache rows to which the branch attends, including the slot's own rows. Must be in [at, at + T] and at
   * least 1. It is also the sequence index of the branch's first token.
   */
  readonly visible: number;
  /** L, the number of tokens to draft, in [1, maxBranchLength]. */
  readonly length: number;
  /** Token with which the branch cannot start, because the target rejected it there. */
  readonly excluded?: number;
}

/** Request to find the first wrong token of a block under verification, and to draft from there on. */
export interface BlockCheck {
  /** Length of the block, in [0, T - 1]. The block is at the end of the slot's tokens. */
  readonly block: number;
  /** L, the number of tokens to draft, in [1, maxBranchLength]. */
  readonly length: number;
}

/** Drafts of one slot. */
export interface DraftOutput {
  /** One branch per request, in the order of the requests. Exactly one for a check. */
  readonly branches: DraftedBranch[];
}

export interface DraftedBranch {
  readonly tokens: Int32Array;
  /** [L] probability that each token is correct if all tokens before it are correct. */
  readonly confidences: Float32Array;
  /** Predicted number of accepted block tokens. Only for a check. */
  readonly accepted?: number;
}

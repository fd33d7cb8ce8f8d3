import type { SamplingParams } from '@ptp/protocol/sampling-params';
import type { AdjustParams } from '@ptp/protocol/token-adjustments';
import type { GrammarState } from '../grammar/types.ts';

/**
 * Drafting mode of a step:
 * - `overlap`: while a block is verified, the next one is drafted for the likely outcomes. If no branch fits the
 *   outcome, the block is redrafted if that pays off.
 * - `sequential`: a block is drafted, then verified.
 * - `plain`: the drafter is not used.
 */
export type Mode = 'overlap' | 'sequential' | 'plain';

export const MODES: readonly Mode[] = ['overlap', 'sequential', 'plain'];

/** Origin of a proposal. The verifier treats all proposals alike, and none of them changes the text. */
export type ProposalSource = 'drafter' | 'prompt lookup' | 'prediction' | 'grammar' | 'none';

/** Tokens proposed for verification, and their source's confidence in each. */
export interface Block {
  readonly source: ProposalSource;
  readonly tokens: readonly number[];
  readonly confidences: readonly number[];
}

export const EMPTY: Block = { source: 'none', tokens: [], confidences: [] };

/** Limits on drafting, from the settings or the request. */
export interface DraftLimits {
  /** Maximum number of tokens of a block. */
  readonly length: number;
  /** Maximum number of tokens over all branches of a draft call. */
  readonly budget: number;
  /** Drafting mode. `auto` selects the mode that is measured as fastest. */
  readonly mode: Mode | 'auto';
  /** True to enable prompt lookup, which proposes repetitions of earlier text. Default: true. */
  readonly lookup?: boolean;
  /** Maximum number of steps sent ahead, that is, before the outcome of the previous step is known. Default: 0. */
  readonly ahead?: number;
}

/** Mode of a step, and the reason for it. */
export interface StepDecision {
  readonly mode: Mode;
  /**
   * `setting`: the mode is fixed. `own`: the drafts of this sequence are rejected or accepted more often than the
   * drafts of other sequences. For the other reasons, see `ModeSelector.next`.
   */
  readonly reason: 'setting' | 'no drafter' | 'warm-up' | 'trial' | 'fastest' | 'own';
}

/** Limits that a request may override. The gateway's own limit on the block length still applies. */
export type DraftOverrides = Partial<Pick<DraftLimits, 'length' | 'mode' | 'lookup'>>;

export type { GrammarState };

/** One sequence to generate. It consists of token ids: callers handle text, JSON and chat templates. */
export interface GenerationRequest {
  /** Token ids, from 1 to contextLength - 1 of them. */
  readonly prompt: readonly number[];
  readonly sampling: SamplingParams;
  /** Changes to the probabilities of individual tokens. */
  readonly adjustments?: AdjustParams;
  /** Initial state of the grammar that constrains the text. */
  readonly grammar?: GrammarState;
  /** Additional tokens that end the text. The text does not contain them. */
  readonly stopTokens?: readonly number[];
  /** True to treat the model's end-of-text token like any other token. */
  readonly ignoreEndOfText?: boolean;
  /** True if log-probabilities must be exact. By default, they may be estimates. */
  readonly logprobs?: boolean;
  /** Number of alternatives to return for each token, from 0 to 20. Default: 0. */
  readonly topCount?: number;
  /** True to return the log-probabilities of the prompt with the first step. */
  readonly promptLogprobs?: boolean;
  /** Seed of the uniforms, from 0 to 2^64 - 1. */
  readonly seed: bigint;
  /** Maximum number of generated tokens, at least 1. The prompt and these tokens must fit the context. */
  readonly maxTokens: number;
  /** Client's guess of the answer. It does not change the text. */
  readonly prediction?: readonly number[];
  /** False to disable drafting, which does not change the text. */
  readonly drafting?: boolean;
  readonly draftLimits?: DraftOverrides;
  /** W3C trace context of the caller, the parent of this request's spans. */
  readonly traceparent?: string;
  /** Properties for traces: `x-request-id`, OpenTelemetry's name of the operation, and true for a streamed answer. */
  readonly requestId?: string;
  readonly operation?: 'chat' | 'text_completion';
  readonly stream?: boolean;
}

/** Figures of one step. Times are in microseconds. */
export interface StepStats {
  /** Index of the step, counted from 0. */
  readonly step: number;
  readonly mode: Mode;
  readonly reason: StepDecision['reason'];
  /** Origin of the verified tokens. */
  readonly source: ProposalSource;
  /** Number of proposed tokens, including tokens not worth verifying. */
  readonly offered: number;
  /** Token budget of the concurrent draft call, or 0 without a draft call. */
  readonly budget: number;
  /** Length of the verified block. */
  readonly drafted: number;
  /** Number of accepted tokens. */
  readonly accepted: number;
  /** Time from sending the step, or from the end of the previous step if that is later, to the step's last answer. */
  readonly stepMicros: number;
  /** Time from sending the step ahead to the end of the previous step, or 0 if the step was not sent ahead. */
  readonly aheadMicros: number;
  /** Duration of the verify call, measured at the gateway. */
  readonly verifyMicros: number;
  /** Duration of the concurrent draft call, measured at the gateway, or 0 without a draft call. */
  readonly draftMicros: number;
  /** Duration of the redraft before the verify call, or 0 without a redraft. */
  readonly redraftMicros: number;
  /** Durations of the services' engine runs. */
  readonly verifyRunMicros: number;
  readonly draftRunMicros: number;
}

/** Alternatives to a token, with the natural logarithms of their probabilities before temperature and truncation. */
export interface TopTokens {
  readonly ids: readonly number[];
  readonly logProbabilities: readonly number[];
}

/** Log-probabilities of all prompt tokens except the first. */
export interface PromptScores {
  readonly logProbabilities: readonly number[];
  /** One entry per token if the request wants alternatives, otherwise empty. */
  readonly tops: readonly TopTokens[];
}

/** Branch of a draft that became the next block. */
export interface BranchTaken {
  /** Number of accepted tokens that the branch assumes. */
  readonly accepted: number;
  /** Number of tokens after the target's own token. */
  readonly length: number;
}

/** Results of one step. */
export interface GenerationStep {
  /** Committed tokens: the accepted tokens, then the target's own token. A token that ends the text is left out. */
  readonly tokens: readonly number[];
  /** Tokens that were verified. */
  readonly proposed: readonly number[];
  /** Natural logarithm of each token's probability, before temperature and truncation. */
  readonly logProbabilities: readonly number[];
  /** Alternatives to each token, the most probable first. Set if the request wants any. */
  readonly tops?: readonly TopTokens[];
  /** True if a token was picked among the most probable tokens only; see `ModelInfo.candidateLimit`. */
  readonly truncated?: boolean;
  readonly stats: StepStats;
  /** Branch of the step's draft that matches the outcome. Unset if no branch does. */
  readonly branch?: BranchTaken;
  /** W3C trace context of the step. Unset if the step is not traced. */
  readonly traceparent?: string;
  /** Number of prompt tokens found in the verifier's prefix cache. Set on the first step. */
  readonly reusedTokens?: number;
  /** Log-probabilities of the prompt. Set on the first step if the request wants them. */
  readonly prompt?: PromptScores;
  /**
   * Reason why the text ended, set on the last step: `stop` for end of text (`tokens` may then be empty), `length` for
   * `maxTokens`.
   */
  readonly finish?: 'stop' | 'length';
}

/** Model that the gateway serves. */
export interface ModelInfo {
  readonly modelId: string;
  readonly vocabulary: number;
  readonly contextLength: number;
  readonly endOfText: number;
  /** Additional end-of-text tokens. */
  readonly stopTokens?: readonly number[];
  /** Token at the beginning of every text, or null if there is none. Default: `endOfText`. */
  readonly beginOfText?: number | null;
  /** Runtime of the target, such as `llama-cpp`. */
  readonly engine?: string;
  /** Format of the target's weights, such as `Q4_K_M`. */
  readonly quantization?: string;
  /**
   * The engine samples only from this many of the most probable tokens, or from `top_k` if that is larger. Unset if the
   * engine samples from all tokens.
   */
  readonly candidateLimit?: number;
  /** True if the model has its own chat template, which means that it was trained for conversations. Default: false. */
  readonly hasChatTemplate?: boolean;
}

/**
 * Availability of the services. `engine`, `quantization` and `candidateLimit` are set if the verifier's values differ
 * from the model's.
 */
export interface Health extends Partial<Pick<ModelInfo, 'engine' | 'quantization' | 'candidateLimit'>> {
  readonly verifier: boolean;
  readonly drafter: boolean;
  /** False if the target has no drafter. Drafts then come from earlier text only. Default: true. */
  readonly hasDrafter?: boolean;
  /** Result of the verifier's check that its engine is batch-invariant. Undefined before the first connection. */
  readonly batchInvariant?: boolean | undefined;
  /** Processor that runs the target. Unset if unknown. */
  readonly device?: string;
  /** True if the verifier's engine cannot scale logits. Default: false. */
  readonly rejectsRepetitionPenalty?: boolean;
}

/** Generates sequences. Implemented by `PairGenerator`, and by a scripted generator in tests. */
export interface Generator {
  readonly model: ModelInfo;
  /**
   * Generates the steps of a sequence. Aborting `signal` or leaving the iteration ends the sequence at both services.
   *
   * @throws PtpError if the request is invalid or a service fails
   */
  generate(request: GenerationRequest, signal: AbortSignal): AsyncIterable<GenerationStep>;
  health(): Health;
}

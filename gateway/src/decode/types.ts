import type { SamplingParams } from '@ptp/protocol/sampling-params';
import type { AdjustParams } from '@ptp/protocol/token-adjustments';
import type { GrammarState } from '../grammar/types.ts';

/**
 * - `overlap`: the next block is drafted for its likely outcomes while this one is verified; if none fits, it is redrafted where that pays.
 * - `sequential`: a block is drafted, then verified.
 * - `plain`: nothing is drafted.
 */
export type Mode = 'overlap' | 'sequential' | 'plain';

export const MODES: readonly Mode[] = ['overlap', 'sequential', 'plain'];

/** Origin of a proposal. The verifier treats all alike: whatever is proposed, the text stays the target's. */
export type ProposalSource = 'drafter' | 'prompt lookup' | 'prediction' | 'grammar' | 'none';

/** Tokens proposed for verification, with their source's confidence in each. */
export interface Block {
  readonly source: ProposalSource;
  readonly tokens: readonly number[];
  readonly confidences: readonly number[];
}

export const EMPTY: Block = { source: 'none', tokens: [], confidences: [] };

/** Limits of drafting, from the settings or the request. */
export interface DraftLimits {
  /** Longest block under verification, in tokens. */
  readonly length: number;
  /** Tokens over all branches of one draft call. */
  readonly budget: number;
  /** `auto` selects the mode measured as fastest. */
  readonly mode: Mode | 'auto';
  /** Enables prompt lookup, which proposes repetitions of earlier text. Default true. */
  readonly lookup?: boolean;
  /** Limit of steps sent ahead, before the outcome of the step before is known. Default 0. */
  readonly ahead?: number;
}

/** The mode of a step and the reason for it. */
export interface StepDecision {
  readonly mode: Mode;
  /** `setting`: the mode is fixed; `own`: the drafts of this sequence fail or succeed more often than others'; else see `ModeSelector.next`. */
  readonly reason: 'setting' | 'no drafter' | 'warm-up' | 'trial' | 'fastest' | 'own';
}

/** Limits that a request may override; a block longer than the gateway's limit is cut to it. */
export type DraftOverrides = Partial<Pick<DraftLimits, 'length' | 'mode' | 'lookup'>>;

export type { GrammarState };

/** One sequence to generate, in token ids only: callers handle text, JSON and chat templates. */
export interface GenerationRequest {
  /** 1 .. contextLength - 1 token ids. */
  readonly prompt: readonly number[];
  readonly sampling: SamplingParams;
  /** Changes to the probabilities of single tokens. */
  readonly adjustments?: AdjustParams;
  /** Initial state of the grammar that the text must follow. */
  readonly grammar?: GrammarState;
  /** Further tokens that end the text, without being part of it. */
  readonly stopTokens?: readonly number[];
  /** Treats the model's end of text as any other token. */
  readonly ignoreEndOfText?: boolean;
  /** Log-probabilities must be exact; estimates by default. */
  readonly logprobs?: boolean;
  /** Alternatives to return for each token, 0 .. 20. Default 0. */
  readonly topCount?: number;
  /** The first step also returns the log-probabilities of the prompt. */
  readonly promptLogprobs?: boolean;
  /** Key of the uniforms, 0 .. 2^64 - 1. */
  readonly seed: bigint;
  /** At least 1; the prompt and this together fit the context. */
  readonly maxTokens: number;
  /** The client's guess of the answer; it does not change the text. */
  readonly prediction?: readonly number[];
  /** False for plain decoding; it does not change the text. */
  readonly drafting?: boolean;
  readonly draftLimits?: DraftOverrides;
  /** W3C trace context of the caller, the parent of this request's spans. */
  readonly traceparent?: string;
  /** Shown in traces: `x-request-id`, OpenTelemetry's name of the operation, and whether the answer is streamed. */
  readonly requestId?: string;
  readonly operation?: 'chat' | 'text_completion';
  readonly stream?: boolean;
}

/** Result of one step and where its time went; times in microseconds. */
export interface StepStats {
  /** From 0. */
  readonly step: number;
  /** Drafting during the verify call, before it, or not at all. */
  readonly mode: Mode;
  /** Reason for the mode, see controller.ts. */
  readonly reason: StepDecision['reason'];
  /** Origin of the verified tokens. */
  readonly source: ProposalSource;
  /** Tokens proposed; some may not have been worth verifying. */
  readonly offered: number;
  /** Token budget of the concurrent draft call; 0 without one. */
  readonly budget: number;
  /** Length of the verified block. */
  readonly drafted: number;
  /** Number of its tokens that were accepted. */
  readonly accepted: number;
  /** From sending the step, or the end of the previous step if that is later, to its outcome, including drafting. */
  readonly stepMicros: number;
  /** Time by which the step was sent before the end of the previous step; 0 if it was not sent ahead. */
  readonly aheadMicros: number;
  /** The verify call as the gateway sees it. */
  readonly verifyMicros: number;
  /** The draft call as the gateway sees it; 0 without one. */
  readonly draftMicros: number;
  /** The redraft before the verify call, made when no branch of the step before fitted; 0 without one. */
  readonly redraftMicros: number;
  /** The services' engine runs. */
  readonly verifyRunMicros: number;
  readonly draftRunMicros: number;
}

/** A token's alternatives under the unshaped model, with natural logs of their probabilities. */
export interface TopTokens {
  readonly ids: readonly number[];
  readonly logProbabilities: readonly number[];
}

/** Log-probabilities of a prompt's tokens but the first. */
export interface PromptScores {
  readonly logProbabilities: readonly number[];
  /** One entry per token if the request wants alternatives, else empty. */
  readonly tops: readonly TopTokens[];
}

/** The branch of a draft that became the next block. */
export interface BranchTaken {
  /** Accepted tokens that it was drafted for. */
  readonly accepted: number;
  /** Tokens after the target's own. */
  readonly length: number;
}

/** One step's outcome. */
export interface GenerationStep {
  /** Committed tokens: accepted ones, then the target's own; at least 1. Tokens that end a text are never among them. */
  readonly tokens: readonly number[];
  /** The block that was verified. */
  readonly proposed: readonly number[];
  /** One natural-log probability per token, under the unshaped model. */
  readonly logProbabilities: readonly number[];
  /** Alternatives per token, the most probable first; if the request wants any. */
  readonly tops?: readonly TopTokens[];
  /** A token was picked among the most probable ones only, see `ModelInfo.candidateLimit`. */
  readonly truncated?: boolean;
  readonly stats: StepStats;
  /** The branch of the step's draft that came true; unset if none did. */
  readonly branch?: BranchTaken;
  /** W3C trace context of the step; unset if it is not traced. */
  readonly traceparent?: string;
  /** On the first step: tokens of the prompt found in the verifier's prefix cache. */
  readonly reusedTokens?: number;
  /** On the first step, if the request wants it. */
  readonly prompt?: PromptScores;
  /** Set on the last step: `stop` for end of text (tokens may then be empty), `length` for maxTokens. */
  readonly finish?: 'stop' | 'length';
}

/** The model that a gateway serves. */
export interface ModelInfo {
  readonly modelId: string;
  readonly vocabulary: number;
  readonly contextLength: number;
  readonly endOfText: number;
  /** Further tokens that end a text. */
  readonly stopTokens?: readonly number[];
  /** The token that stands before every text, null for none; endOfText if not given. */
  readonly beginOfText?: number | null;
  /** Runtime of the target, such as `llama-cpp`. */
  readonly engine?: string;
  /** Format of the target's weights, such as `Q4_K_M`. */
  readonly quantization?: string;
  /** Number of most probable tokens that the engine samples from, unless `top_k` is larger; unset for all tokens. */
  readonly candidateLimit?: number;
}

/** Availability of the services. */
export interface Health {
  readonly verifier: boolean;
  readonly drafter: boolean;
  /** Result of the verifier's check that its engine is batch-invariant; undefined before the first connection. */
  readonly batchInvariant?: boolean | undefined;
}

/** Generates sequences: `PairGenerator`, or a scripted generator in tests. */
export interface Generator {
  readonly model: ModelInfo;
  /** Rejects with PtpError. Aborting `signal`, or returning from the iteration, ends both streams and their sequences. */
  generate(request: GenerationRequest, signal: AbortSignal): AsyncIterable<GenerationStep>;
  /** A missing drafter is not an error, only slower. */
  health(): Health;
}

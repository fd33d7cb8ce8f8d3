import type { SamplingParams } from '@ptp/protocol/sampling-params';
import type { AdjustParams } from '@ptp/protocol/token-adjustments';
import type { GrammarState } from '../grammar/types.ts';
import type { ProposalSource } from './block.ts';
import type { DraftLimits, StepDecision } from './controller.ts';
import type { Mode } from './mode-selector.ts';

/** What a request may want otherwise than the gateway's settings have it; a longer block than theirs is cut to theirs. */
export type DraftOverrides = Partial<Pick<DraftLimits, 'length' | 'mode' | 'lookup'>>;

export type { GrammarState };

/** What the loop (run.ts) gets and gives: token ids only. Text, JSON and chat templates are its callers' business. */

/** One sequence to be generated. */
export interface GenerationRequest {
  /** 1 .. contextLength - 1 token ids. */
  readonly prompt: readonly number[];
  readonly sampling: SamplingParams;
  /** What changes about single tokens; nothing unless given. */
  readonly adjustments?: AdjustParams;
  /** Where a text begins that has to follow a grammar; free unless given. */
  readonly grammar?: GrammarState;
  /** Tokens that end the text beside the model's own; they are not part of it. */
  readonly stopTokens?: readonly number[];
  /** Whether the model's own end of text is a token like any other. */
  readonly ignoreEndOfText?: boolean;
  /** Alternatives to tell for each token, 0 .. 20; 0 unless given. */
  readonly topCount?: number;
  /** Whether the first step also tells what the model thinks of the prompt. */
  readonly tellPrompt?: boolean;
  /** Key of the uniforms, 0 .. 2^64 - 1. */
  readonly seed: bigint;
  /** At least 1; the prompt and this together fit the context. */
  readonly maxTokens: number;
  /** What the answer may well be, by the client; the text is the same. */
  readonly prediction?: readonly number[];
  /** false for plain decoding; the text is the same. */
  readonly drafting?: boolean;
  readonly draftLimits?: DraftOverrides;
  /** The caller's span (W3C Trace Context), under which this request's spans are recorded. */
  readonly traceparent?: string;
  /** What its traces tell of the call that it came with: `x-request-id`, the operation's name in OpenTelemetry, whether it is streamed. */
  readonly requestId?: string;
  readonly operation?: 'chat' | 'text_completion';
  readonly stream?: boolean;
}

/** What one step did and where its time went; times in microseconds. */
export interface StepStats {
  /** From 0. */
  readonly step: number;
  /** Whether the step drafted beside the verify, before it, or not at all. */
  readonly mode: Mode;
  /** Why, see controller.ts. */
  readonly reason: StepDecision['reason'];
  /** Where the tokens that were verified came from. */
  readonly source: ProposalSource;
  /** Tokens that there were to verify; the rest of them was not worth its time. */
  readonly offered: number;
  /** Tokens that the draft call beside the verify was allowed; 0 when there was none. */
  readonly budget: number;
  /** Length of the block that was verified. */
  readonly drafted: number;
  /** How many of its tokens were right. */
  readonly accepted: number;
  /** From sending the step, or from the end of the one before it where that is later, to knowing its outcome, drafting included. */
  readonly stepMicros: number;
  /** How long before the end of the step before it was sent, for the outcome that it was expected to have; 0 if it was sent after it. */
  readonly aheadMicros: number;
  /** The verify call as the gateway saw it. */
  readonly verifyMicros: number;
  /** The draft call as the gateway saw it; 0 when there was none. */
  readonly draftMicros: number;
  /** The draft call before the verify, made when the draft of the step before was of no use; 0 when there was none. */
  readonly redraftMicros: number;
  /** The services' engine runs. */
  readonly verifyRunMicros: number;
  readonly draftRunMicros: number;
}

/** A token's alternatives under the unshaped model, and natural logs of their probabilities. */
export interface TopTokens {
  readonly ids: readonly number[];
  readonly logProbabilities: readonly number[];
}

/** What the model thinks of a prompt's tokens but the first. */
export interface PromptScores {
  readonly logProbabilities: readonly number[];
  /** As many, if any alternatives were asked for; else empty. */
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
  /** What was proposed for their places. */
  readonly proposed: readonly number[];
  /** One natural-log probability per token, under the unshaped model. */
  readonly logProbabilities: readonly number[];
  /** Per token its alternatives, the most probable first; if the request asked for any. */
  readonly tops?: readonly TopTokens[];
  readonly stats: StepStats;
  /** The branch of the step's draft that came true; unset if none did. */
  readonly branch?: BranchTaken;
  /** W3C trace context of the step; unset if it is not traced. */
  readonly traceparent?: string;
  /** On the first step: tokens of the prompt that the verifier knew from an earlier sequence. */
  readonly reusedTokens?: number;
  /** On the first step, if the request asked for it. */
  readonly prompt?: PromptScores;
  /** Set on the last step: `stop` for end of text (tokens may then be empty), `length` for maxTokens. */
  readonly finish?: 'stop' | 'length';
}

/** The pair that a gateway serves. */
export interface ModelInfo {
  readonly modelId: string;
  readonly vocabulary: number;
  readonly contextLength: number;
  readonly endOfText: number;
  /** Tokens beside endOfText that end a text too. */
  readonly stopTokens?: readonly number[];
  /** The token that stands before every text, null for none; endOfText if not given. */
  readonly beginOfText?: number | null;
}

/** What is there to generate with. */
export interface Health {
  readonly verifier: boolean;
  readonly drafter: boolean;
  /** Whether the verifier has found its engine batch-invariant, see self-check.ts; undefined before one was there. */
  readonly batchInvariant?: boolean;
}

/** Anything that generates: the loop over the two services, or a scripted one in tests of the HTTP edge. */
export interface Generator {
  readonly model: ModelInfo;
  /** Rejects with PtpError. Aborting `signal`, or returning from the iteration, ends both streams and their sequences. */
  generate(request: GenerationRequest, signal: AbortSignal): AsyncIterable<GenerationStep>;
  /** Whether the verifier answers; the drafter's absence is not an error, only slower. */
  health(): Health;
}

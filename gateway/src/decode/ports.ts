import type { Branch } from '@ptp/protocol/gen/ptp/v1/drafter_pb';
import type { CallTime, VerifyTime } from './cost-model.ts';
import type { GenerationRequest, Health, ModelInfo, PromptScores, TopTokens } from './types.ts';

/** The two services as the decode loop uses them. `clients/` implements this interface over gRPC. */
export interface Streams {
  readonly model: ModelInfo;
  health(): Health;
  /** @throws PtpError `unavailable` when no verifier can be used */
  verify(request: GenerationRequest, context: StreamContext): VerifyStream;
  draft(request: GenerationRequest, context: StreamContext): DraftStream;
}

export interface StreamContext {
  readonly signal: AbortSignal;
  /** W3C trace context of the request; empty if it is not traced. */
  readonly traceparent: string;
  /** Called when the stream has lost its verifier and continues at another one. */
  readonly onVerifierLoss: () => void;
}

/** Identity of a step for its calls and observers. */
export interface StepRef {
  /** Number in its request, from 0; the number of a dropped step is reused. */
  readonly index: number;
  /** W3C trace context of the step; the observer that traces sets it. */
  traceparent?: string;
}

interface Call {
  /** W3C trace context of the call; the observer that traces sets it before the call is sent. */
  traceparent?: string;
}

export interface VerifyCall extends Call {
  readonly kind: 'verify';
  readonly step: StepRef;
  readonly block: readonly number[];
  /** Masks of the tokens allowed at each of the block's positions and after it (`GrammarState.mask`); empty without a grammar. */
  readonly allowed: readonly Uint8Array[];
  /** Set for a step sent ahead: the verifier runs it only if the step before ends so. */
  readonly after?: ExpectedOutcome;
  /** A draft call follows once this one has left. */
  readonly overlapped: boolean;
}

/** `draft` runs while the step's block is verified; `redraft` precedes the verify call, or the first step of a request. */
export interface DraftCall extends Call {
  readonly kind: 'draft' | 'redraft';
  /** Undefined for the first draft of a request. */
  readonly step: StepRef | undefined;
  /** Tokens after the committed ones: `assumed` tokens that steps in flight are expected to commit, then the block under verification. */
  readonly tokens: readonly number[];
  /** One per token. */
  readonly confidences: readonly number[];
  readonly assumed: number;
  /** Tokens over all branches. */
  readonly budget: number;
  readonly maxBranchLength: number;
}

/** Outcome of a step: the number of accepted tokens of its block, and the target's own token after them. */
export interface StepOutcome {
  readonly accepted: number;
  readonly nextToken: number;
}

/** Outcome that a step in flight is expected to have. */
export interface ExpectedOutcome extends StepOutcome {
  readonly of: StepRef;
}

/** The verifier's answer to a block. */
export interface Verdict extends StepOutcome {
  /** accepted + 1 natural logarithms. */
  readonly logProbabilities: readonly number[];
  /** accepted + 1 entries if the request wants alternatives, else empty. */
  readonly tops: readonly TopTokens[];
  /** A token was picked among the most probable ones only, see `ModelInfo.candidateLimit`. */
  readonly truncated?: boolean;
  readonly time: VerifyTime;
}

/** The drafter's answer. */
export interface Draft extends CallTime {
  readonly branches: readonly Branch[];
}

/** The verifier's answer to a prompt. */
export interface Opened {
  /** Tokens of the prompt found in the verifier's prefix cache. */
  readonly reusedTokens: number;
  /** If the request wants it. */
  readonly prompt?: PromptScores;
}

/** One sequence at the verifier. */
export interface VerifyStream {
  /** Resolves when the prompt has been read. */
  opened(): Promise<Opened>;
  /**
   * Resolves with undefined for a step sent ahead that was not run, because the step before ended otherwise or the verifier was lost.
   *
   * @throws PtpError when the verifier is lost or rejects the step
   */
  step(call: VerifyCall): Promise<Verdict | undefined>;
  /** Ends the stream and its sequence. */
  close(): void;
}

/** One sequence at the drafter. */
export interface DraftStream {
  /**
   * Resolves when the prompt has been read, or shortly after `verifierOpened`, since a slower drafter is not worth
   * waiting for.
   */
  opened(verifierOpened: Promise<unknown>): Promise<void>;
  /** True if the next step can expect a draft. Reopens a lost stream when its backoff is over. */
  available(): boolean;
  /** Adds committed tokens, which reach the drafter with the next step. */
  commit(tokens: readonly number[]): void;
  /** @throws PtpError when the drafter fails or is late; decoding continues without it */
  step(call: DraftCall): Promise<Draft>;
  close(): void;
}

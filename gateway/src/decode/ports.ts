import type { Branch } from '@ptp/protocol/gen/ptp/v1/drafter_pb';
import type { CallTime, VerifyTime } from './cost-model.ts';
import type { GenerationRequest, Health, ModelInfo, PromptScores, TopTokens } from './types.ts';

/** Interface of the two services for the decode loop. `clients/` implements it with gRPC. */
export interface Streams {
  readonly model: ModelInfo;
  health(): Health;
  /** Opens a stream. @throws PtpError `unavailable` if no verifier can be used */
  verify(request: GenerationRequest, context: StreamContext): VerifyStream;
  /** Opens a stream. Returns undefined if the target has no drafter. */
  draft(request: GenerationRequest, context: StreamContext): DraftStream | undefined;
}

export interface StreamContext {
  readonly signal: AbortSignal;
  /** W3C trace context of the request. Empty if it is not traced. */
  readonly traceparent: string;
  /** Called when the stream has lost its verifier and continues at another verifier. */
  readonly onVerifierLoss: () => void;
}

/** Identity of a step for its calls and observers. */
export interface StepRef {
  /** Index of the step in its request, counted from 0. The index of a dropped step is reused. */
  readonly index: number;
  /** W3C trace context of the step, set by the tracing observer. */
  traceparent?: string;
}

interface Call {
  /** W3C trace context of the call, set by the tracing observer before the call is sent. */
  traceparent?: string;
}

export interface VerifyCall extends Call {
  readonly kind: 'verify';
  readonly step: StepRef;
  readonly block: readonly number[];
  /** Masks of allowed tokens (`GrammarState.mask`) at each position and after the block. Empty without a grammar. */
  readonly allowed: readonly Uint8Array[];
  /** Set for steps that are sent ahead: the verifier runs the step only if the previous step has this outcome. */
  readonly after?: ExpectedOutcome | AnyOutcome;
  /** True if a draft call follows once this call has been sent. */
  readonly overlapped: boolean;
}

/** Call to the drafter. `draft` runs while the step's block is verified; `redraft` precedes the verify call. */
export interface DraftCall extends Call {
  readonly kind: 'draft' | 'redraft';
  /** Undefined for the first draft of a request. */
  readonly step: StepRef | undefined;
  /**
   * Tokens after the committed tokens. The first `assumed` of them are those that the steps in flight are expected to
   * commit; the rest are the block under verification.
   */
  readonly tokens: readonly number[];
  /** One confidence per token. */
  readonly confidences: readonly number[];
  readonly assumed: number;
  /** Maximum number of tokens over all branches. */
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

/** Any outcome of a step in flight. */
export interface AnyOutcome {
  readonly of: StepRef;
}

/** The verifier's answer to a block. */
export interface Verdict extends StepOutcome {
  /** Log-probabilities (natural) of the `accepted` + 1 committed tokens. */
  readonly logProbabilities: readonly number[];
  /** `accepted` + 1 entries if the request wants alternatives, otherwise empty. */
  readonly tops: readonly TopTokens[];
  /** True if a token was picked among the most probable tokens only; see `ModelInfo.candidateLimit`. */
  readonly truncated?: boolean;
  readonly time: VerifyTime;
}

/** The drafter's answer. */
export interface Draft extends CallTime {
  readonly branches: readonly Branch[];
}

/** The verifier's answer to a prompt. */
export interface Opened {
  /** Number of prompt tokens found in the verifier's prefix cache. */
  readonly reusedTokens: number;
  /** Log-probabilities of the prompt. Set if the request wants them. */
  readonly prompt?: PromptScores;
}

/** One sequence at the verifier. */
export interface VerifyStream {
  /** Resolves once the prompt has been processed. */
  opened(): Promise<Opened>;
  /**
   * Verifies a block. Resolves with undefined if the step was sent ahead but not run, because the previous step did not
   * have the assumed outcome, or because the verifier was lost.
   *
   * @throws PtpError if the verifier is lost or rejects the step
   */
  step(call: VerifyCall): Promise<Verdict | undefined>;
  /** Ends the stream and its sequence. */
  close(): void;
}

/** One sequence at the drafter. */
export interface DraftStream {
  /**
   * Resolves once the prompt has been processed, or shortly after `verifierOpened`, because waiting for a slower
   * drafter does not pay off.
   */
  opened(verifierOpened: Promise<unknown>): Promise<void>;
  /** Returns true if the next step can expect a draft. Reopens a lost stream once its backoff is over. */
  available(): boolean;
  /** Adds committed tokens, which reach the drafter with the next step. */
  commit(tokens: readonly number[]): void;
  /** @throws PtpError if the drafter fails or is late. Decoding then continues without it */
  step(call: DraftCall): Promise<Draft>;
  close(): void;
}

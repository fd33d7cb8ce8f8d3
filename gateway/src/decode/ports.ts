import type { Span } from '@opentelemetry/api';
import type { Branch } from '@ptp/protocol/gen/ptp/v1/drafter_pb';
import type { VerifyTime } from './cost-model.ts';
import type { GenerationRequest, Health, ModelInfo, PromptScores, TopTokens } from './types.ts';

/** The verifier has read the prompt. */
export interface Opened {
  /** Tokens of the prompt that it knew from an earlier sequence, and did not read. */
  readonly reusedTokens: number;
  /** If the request asked for it. */
  readonly prompt?: PromptScores;
}

/** What the target said of one block. */
export interface Verdict {
  readonly accepted: number;
  readonly nextToken: number;
  /** accepted + 1 natural logarithms. */
  readonly logProbabilities: readonly number[];
  /** As many, if any alternatives were asked for; else empty. */
  readonly tops: readonly TopTokens[];
  readonly time: VerifyTime;
}

/** The step of the loop that a call is made for. */
export interface StepUnderWay {
  readonly span: Span;
}

/** What a step ends with: how many tokens of its block are right, and what the target says after these. */
export type Ending = Pick<Verdict, 'accepted' | 'nextToken'>;

/** The tokens that a step with this block commits when it ends so. */
export function committedBy(block: readonly number[], { accepted, nextToken }: Ending): number[] {
  return [...block.slice(0, accepted), nextToken];
}

/** What a step is expected to end with: the next step may be sent for that, before it is known. */
export interface Expected extends Ending {
  readonly of: StepUnderWay;
}

/** What a verify call asks. */
export interface Proposal {
  readonly step: StepUnderWay;
  readonly block: readonly number[];
  /** Which tokens may be chosen at each of the block's places and after it (`GrammarState.mask`); empty where all may. */
  readonly allowed: readonly Uint8Array[];
}

/** What a draft call is to go on from. */
export interface DraftedAfter {
  /** Tokens after the committed ones: `assumed` ones, which the verifier is expected to say, and those that it then verifies. */
  readonly tokens: readonly number[];
  /** As many. */
  readonly confidences: readonly number[];
  readonly assumed: number;
}

/** What the drafter proposed. */
export interface Draft {
  readonly branches: readonly Branch[];
  readonly micros: number;
  readonly queueMicros: number;
  /** The engine run, which `batchSize` sequences shared. */
  readonly runMicros: number;
  readonly batchSize: number;
}

/** One sequence at the verifier. */
export interface VerifyStream {
  /** Resolves when the prompt has been read. */
  opened(): Promise<Opened>;
  /** @throws PtpError when the verifier is lost or refuses */
  step(proposal: Proposal): Promise<Verdict>;
  /**
   * A step that is sent before the one before it has been answered, and run if that ends as expected. Resolves with undefined if it does
   * not, and when the verifier is lost: `step` then says what is true.
   */
  stepAfter(expected: Expected, proposal: Proposal): Promise<Verdict | undefined>;
  /** Ends the stream and its sequence. */
  close(): void;
}

/** One sequence at the drafter. Never throws: a drafter that fails is left out, and tried again later. */
export interface DraftStream {
  /** Resolves when the prompt has been read, or a little after `verifierOpened`: a slower drafter is not waited for. */
  opened(verifierOpened: Promise<unknown>): Promise<void>;
  /** Whether the next step can be expected to bring a draft. A lost drafter is looked for again when its pause is over. */
  available(): boolean;
  /** Tokens that the verifier has committed; told to the drafter with the next step. */
  commit(tokens: readonly number[]): void;
  /** Drafts what may follow the block under verification; undefined when there is no drafter. */
  step(
    after: DraftedAfter,
    plan: { readonly budget: number; readonly maxBranchLength: number },
    step: StepUnderWay,
  ): Promise<Draft | undefined>;
  close(): void;
}

/** The two services, as the loop needs them. */
export interface Streams {
  readonly model: ModelInfo;
  health(): Health;
  verify(request: GenerationRequest, signal: AbortSignal, span: Span): VerifyStream;
  draft(request: GenerationRequest, signal: AbortSignal, span: Span): DraftStream;
}

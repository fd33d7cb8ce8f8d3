import type { Controller } from './controller.ts';
import type { Draft, DraftCall, StepRef, Verdict, VerifyCall } from './ports.ts';
import type { Proposer } from './proposers/proposers.ts';
import type { DraftLimits, GenerationRequest, ModelInfo } from './types.ts';

/** Parts of a pipeline. */
export interface PipelineParts {
  readonly request: Pick<GenerationRequest, 'maxTokens' | 'grammar' | 'stopTokens' | 'ignoreEndOfText' | 'drafting'>;
  readonly model: Pick<ModelInfo, 'endOfText' | 'stopTokens'>;
  readonly limits: Pick<DraftLimits, 'ahead'>;
  readonly policy: StepPolicy;
  readonly proposers: readonly Proposer[];
  /** True if each step has an empty block and no masks, so that it depends on no outcome. Default: false. */
  readonly isPlain?: boolean;
}

/** Decides how steps draft. */
export type StepPolicy = Omit<Controller, 'close'>;

/** Input of a pipeline: an answer, or the notice that a verify call has been sent. */
export type PipelineEvent =
  | { readonly kind: 'verifySent'; readonly step: StepRef }
  | { readonly kind: 'verdict'; readonly step: StepRef; readonly verdict: Verdict | undefined; readonly at: number }
  | {
      readonly kind: 'draft' | 'redraft';
      readonly step: StepRef | undefined;
      readonly draft: Draft | undefined;
      readonly at: number;
    };

/** Output of a pipeline: a call to send, or an instruction to the drafter's stream or the observers. */
export type Command =
  | VerifyCall
  | DraftCall
  /** Adds tokens to the drafter's context. */
  | { readonly kind: 'commit'; readonly tokens: readonly number[] }
  /** Reports that a step sent ahead is obsolete. */
  | { readonly kind: 'drop'; readonly step: StepRef };

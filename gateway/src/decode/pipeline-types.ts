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
}

/** Decides how steps draft. */
export type StepPolicy = Omit<Controller, 'close'>;

export type PipelineEvent =
  | { readonly kind: 'verifySent'; readonly step: StepRef }
  | { readonly kind: 'verdict'; readonly step: StepRef; readonly verdict: Verdict | undefined; readonly at: number }
  | {
      readonly kind: 'draft' | 'redraft';
      readonly step: StepRef | undefined;
      readonly draft: Draft | undefined;
      readonly at: number;
    };

export type Command =
  | VerifyCall
  | DraftCall
  /** Tokens for the drafter's context. */
  | { readonly kind: 'commit'; readonly tokens: readonly number[] }
  /** A step sent ahead is obsolete. */
  | { readonly kind: 'drop'; readonly step: StepRef };

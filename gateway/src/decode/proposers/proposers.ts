import type { Block } from '../block.ts';
import type { DraftLimits } from '../controller.ts';
import type { GenerationRequest, ModelInfo } from '../types.ts';
import { JumpAheadProposer } from './jump-ahead.ts';
import { PredictedOutputProposer } from './predicted-output.ts';
import { PromptLookupProposer } from './prompt-lookup.ts';

/** What proposes without a model. */
export interface Proposer {
  /** Tokens that the text goes on with. */
  push(tokens: readonly number[]): void;
  /** At most `length` tokens, should the text go on with those of `after` first. */
  propose(length: number, after: readonly number[]): Block;
}

/** Those that a request has beside the drafter. */
export function proposersFor(
  { prompt, prediction, grammar, drafting }: GenerationRequest,
  { lookup = true }: DraftLimits,
  { vocabulary }: ModelInfo,
): Proposer[] {
  if (drafting === false) return [];
  return [
    ...(grammar ? [new JumpAheadProposer(grammar)] : []),
    ...(prediction && prediction.length > 0 ? [new PredictedOutputProposer(prediction)] : []),
    ...(lookup ? [new PromptLookupProposer(prompt, vocabulary)] : []),
  ];
}

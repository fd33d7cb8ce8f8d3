import type { Block, DraftLimits, GenerationRequest, ModelInfo } from '../types.ts';
import { JumpAheadProposer } from './jump-ahead.ts';
import { PredictedOutputProposer } from './predicted-output.ts';
import { PromptLookupProposer } from './prompt-lookup.ts';

/** Proposer of blocks that needs no model. */
export interface Proposer {
  /** Appends committed tokens. */
  push(tokens: readonly number[]): void;
  /** Proposes at most `length` tokens, assuming that `after` is committed first. */
  propose(length: number, after: readonly number[]): Block;
}

/** Returns the proposers for a request. */
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

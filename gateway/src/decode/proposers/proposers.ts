import type { Block, DraftLimits } from '../controller.ts';
import type { GenerationRequest, PairFacts } from '../types.ts';
import { Forced } from './jump-ahead.ts';
import { Prediction } from './predicted-output.ts';
import { PromptLookup } from './prompt-lookup.ts';

/** What proposes without a model. */
export interface Source {
  /** Tokens that the text goes on with. */
  push(tokens: readonly number[]): void;
  /** At most `length` tokens, should the text go on with those of `after` first. */
  propose(length: number, after: readonly number[]): Block;
}

/** Those that a request has beside the drafter. */
export function sourcesOf(
  { prompt, prediction, grammar, drafting }: GenerationRequest,
  { lookup = true }: DraftLimits,
  { vocabulary }: PairFacts,
): Source[] {
  if (drafting === false) return [];
  return [
    ...(grammar ? [new Forced(grammar)] : []),
    ...(prediction && prediction.length > 0 ? [new Prediction(prediction)] : []),
    ...(lookup ? [new PromptLookup(prompt, vocabulary)] : []),
  ];
}

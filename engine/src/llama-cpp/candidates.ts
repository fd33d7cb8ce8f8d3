import type { SamplingParams } from '@ptp/protocol/sampling-params';
import type { ControlledEvaluateIndexOutput, ControlledEvaluateInputItem, Token } from 'node-llama-cpp';
import type { Adjustment } from '../sampling/adjust.ts';
import type { Candidates } from '../sampling/candidates.ts';

/**
 * Most probable tokens that a request without top-k is picked from. Sorting and copying all logits of a vocabulary of
 * 150,000 takes some 70 ms per position, more than most models take.
 */
export const CANDIDATE_LIMIT = 1024;
/** Candidates beyond those needed, so that ties at the last one do not matter. */
const SPARE = 8;
/** llama.cpp's binding searches this list once per vocabulary entry; with more tokens, reading all logits is cheaper. */
const NAMED_LIMIT = 256;

/** Requests the logits from which the successor of a token is picked. */
export interface CandidateRequest {
  /** Most probable tokens to read, 1 .. V; V reads all. */
  readonly top: number;
  /** Further tokens to read: those that an adjustment may raise. */
  readonly named: readonly number[];
}

/** A position's logits as llama.cpp returned them. */
export interface Position extends Candidates {
  /** Natural log of the sum of exp(logit) over the vocabulary. */
  readonly logTotal: number;
}

/** Plans the logits to read for one pick. @param all reads the whole vocabulary */
export function candidateRequest(
  { temperature, topK }: SamplingParams,
  adjustment: Adjustment | undefined,
  topCount: number,
  vocabulary: number,
  all = false,
): CandidateRequest {
  const named = adjustment ? [...new Set([...adjustment.scaled, ...adjustment.biased])] : [];
  if (all || named.length > NAMED_LIMIT) return { top: vocabulary, named: [] };
  // Each named token may leave the top, so that another one moves up.
  const needed = temperature === 0 ? 1 : topK || CANDIDATE_LIMIT;
  const top = Math.max(needed + named.length, topCount) + SPARE;
  return top >= vocabulary ? { top: vocabulary, named: [] } : { top, named };
}

/** An input of `controlledEvaluate`. Temperature 0 makes llama.cpp's own sampler leave the logits as they are. */
export function evaluateInput(token: number, { top, named }: CandidateRequest, vocabulary: number) {
  const filter = { tokens: named as readonly Token[], includeTop: top };
  const logits = top >= vocabulary ? true : { filter };
  const item: ControlledEvaluateInputItem = [
    token as Token,
    { generateNext: { logits, totalLogitWeight: true, options: { temperature: 0 } } },
  ];
  return item;
}

/** Reads what llama.cpp returned: the most probable tokens in falling order, then the named ones. */
export function readPosition(
  output: ControlledEvaluateIndexOutput | undefined,
  { top }: CandidateRequest,
  vocabulary: number,
): Position {
  const { logits, totalLogitWeight } = output?.next ?? {};
  if (!logits || totalLogitWeight === undefined) throw new Error('llama.cpp returned no logits');
  const values = [...logits.values()];
  const largest = values[0] ?? Number.NaN;
  const floor = top >= vocabulary ? Number.NEGATIVE_INFINITY : (values[top - 1] as number);
  return { logits, floor, logTotal: largest + Math.log(totalLogitWeight) };
}

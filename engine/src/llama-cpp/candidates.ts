import { CANDIDATE_LIMIT } from '@ptp/protocol/manifest';
import type { SamplingParams } from '@ptp/protocol/sampling-params';
import type { ControlledEvaluateIndexOutput, ControlledEvaluateInputItem, Token } from 'node-llama-cpp';
import { type Adjustment, allowedTokens, changedTokens } from '../sampling/adjust.ts';
import type { Candidates } from '../sampling/candidates.ts';

/** Number of candidates to read beyond the required ones, so that ties at the last one do not matter. */
const SPARE = 8;
/**
 * Maximum length of the list of named tokens. llama.cpp's binding searches the list once for each vocabulary entry, so
 * with more tokens it is cheaper to read all logits.
 */
const NAMED_LIMIT = 256;

/** Request for the logits from which the successor of a token is picked. */
export interface CandidateRequest {
  /** Number of most probable tokens to read, in [0, V]. V reads all tokens. */
  readonly top: number;
  /** Other tokens to read. */
  readonly named: readonly number[];
  /** True if no token outside the request can be picked. */
  readonly complete: boolean;
  /** True to also compute the sum of exp(logit) over the vocabulary, for exact log-probabilities. */
  readonly total: boolean;
}

/** Logits at one position, as llama.cpp returned them. */
export interface Position extends Candidates {
  /** Natural logarithm of the sum of exp(logit) over the vocabulary. An estimate unless the request has `total`. */
  readonly logTotal: number;
}

/** The parts of a slot that decide which logits are needed. */
export interface Need {
  readonly sampling: SamplingParams;
  readonly adjustment: Adjustment | undefined;
  readonly topCount: number;
  /** True if log-probabilities may be estimates. */
  readonly rough: boolean;
}

/**
 * Plans the logits to read for one pick.
 *
 * The most probable tokens are enough unless an adjustment raises other tokens, or a grammar allows only a few. Such
 * tokens are requested by name. Named tokens and the sum over the vocabulary are slow to read (docs/engines.md, "Cost
 * of sampling").
 */
export function candidateRequest(
  { sampling, adjustment, topCount, rough }: Need,
  vocabulary: number,
): CandidateRequest {
  const { raised, lowered } = changedTokens(adjustment);
  const allowed = adjustment?.allowed && allowedTokens(adjustment.allowed, vocabulary, NAMED_LIMIT);
  const total = !rough || topCount > 0;
  // Each lowered token may drop out of the most probable tokens, so that another token moves up.
  const needed = (sampling.temperature === 0 ? 1 : sampling.topK || CANDIDATE_LIMIT) + lowered + SPARE;
  const alternatives = Math.max(topCount, Number(total));
  if (allowed) return { top: alternatives, named: allowed, complete: true, total };
  const top = Math.max(needed + raised.length, alternatives);
  if (top >= vocabulary || raised.length > NAMED_LIMIT) return everything(vocabulary);
  return { top, named: raised, complete: false, total };
}

/** Returns a request for the whole vocabulary. */
export function everything(vocabulary: number): CandidateRequest {
  return { top: vocabulary, named: [], complete: true, total: true };
}

/**
 * Returns an input for `controlledEvaluate`. A top-k sampler with temperature 1 finds the most probable tokens without
 * sorting the vocabulary. It leaves the logits of these tokens unchanged, and so does temperature 0.
 */
export function evaluateInput(token: number, { top, named, total }: CandidateRequest, vocabulary: number) {
  const generateNext =
    top < vocabulary && !total && named.length === 0
      ? { logits: true, options: { temperature: 1, topK: top, topP: 1, minP: 0 } }
      : {
          logits: top >= vocabulary ? true : { filter: { tokens: named as readonly Token[], includeTop: top } },
          totalLogitWeight: total,
          options: { temperature: 0 },
        };
  const item: ControlledEvaluateInputItem = [token as Token, { generateNext }];
  return item;
}

/**
 * Converts the logits that llama.cpp returned: first the most probable tokens in descending order, then the named
 * tokens.
 */
export function readPosition(
  output: ControlledEvaluateIndexOutput | undefined,
  { top, complete, total }: CandidateRequest,
  vocabulary: number,
): Position {
  const { logits: read, totalLogitWeight } = output?.next ?? {};
  if (!read || (total && totalLogitWeight === undefined)) throw new Error('llama.cpp returned no logits');
  const ids = new Int32Array(read.size);
  const logits = new Float32Array(read.size);
  let [count, largest] = [0, Number.NEGATIVE_INFINITY];
  for (const [id, logit] of read) {
    ids[count] = id;
    logits[count++] = logit;
    if (logit > largest) largest = logit;
  }
  const floor = complete ? Number.NEGATIVE_INFINITY : (logits[top - 1] as number);
  return {
    ids,
    logits,
    floor,
    vocabulary,
    logTotal: largest + Math.log(totalLogitWeight ?? weightOf(logits, largest)),
  };
}

/** Returns the sum of exp(logit - largest). */
function weightOf(logits: Float32Array, largest: number): number {
  let sum = 0;
  for (let i = 0; i < logits.length; i++) sum += Math.exp((logits[i] as number) - largest);
  return sum;
}

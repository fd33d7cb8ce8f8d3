import type { TokenAdjustments } from './gen/ptp/v1/common_pb.ts';
import { requireField } from './validation.ts';

/** What a request changes about single tokens. All of it follows from token ids, so that a verifier knows it along a draft too. */
export interface AdjustParams {
  /** Added to the logits of these token ids, in [-100, 100]. */
  readonly logitBias: ReadonlyMap<number, number>;
  /** Subtracted once from the logits of tokens that were generated already, and as often as they were; in [-2, 2]. */
  readonly presencePenalty: number;
  readonly frequencyPenalty: number;
  /** Divides positive logits of tokens in the prompt or generated already, multiplies negative ones; in (0, 10], 1 is off. */
  readonly repetitionPenalty: number;
  /** Token ids that may not be chosen at positions below `heldBackUntil`. */
  readonly heldBack: readonly number[];
  readonly heldBackUntil: number;
}

/** Logits divided by less may leave float32's range; a token that is there already is the most probable one long before. */
const LEAST_REPETITION = 1e-6;
/** Entries that a logit bias may have. */
const MOST_BIASES = 1024;

export const noAdjustment: AdjustParams = {
  logitBias: new Map(),
  presencePenalty: 0,
  frequencyPenalty: 0,
  repetitionPenalty: 1,
  heldBack: [],
  heldBackUntil: 0,
};

/**
 * A request's adjustments, checked; undefined where nothing is asked for.
 *
 * @throws PtpError `invalid_argument` with the field as it is spelt on the wire
 */
export function adjustParams(
  given: { readonly [K in keyof AdjustParams]?: AdjustParams[K] | null | undefined },
  vocabulary: number,
): AdjustParams | undefined {
  const logitBias = given.logitBias ?? noAdjustment.logitBias;
  const presencePenalty = given.presencePenalty ?? 0;
  const frequencyPenalty = given.frequencyPenalty ?? 0;
  const repetitionPenalty = given.repetitionPenalty ?? 1;
  const heldBackUntil = given.heldBackUntil ?? 0;
  const heldBack = heldBackUntil > 0 ? (given.heldBack ?? []) : [];
  requireField(logitBias.size <= MOST_BIASES, 'logit_bias', `at most ${MOST_BIASES} entries`, logitBias.size);
  for (const [id, bias] of logitBias) {
    requireField(isToken(id, vocabulary), 'logit_bias', `of token ids in [0, ${vocabulary - 1}]`, id);
    requireField(bias >= -100 && bias <= 100, `logit_bias[${id}]`, 'in [-100, 100]', bias);
  }
  for (const id of heldBack)
    requireField(isToken(id, vocabulary), 'held_back', `token ids in [0, ${vocabulary - 1}]`, id);
  requireField(Math.abs(presencePenalty) <= 2, 'presence_penalty', 'in [-2, 2]', presencePenalty);
  requireField(Math.abs(frequencyPenalty) <= 2, 'frequency_penalty', 'in [-2, 2]', frequencyPenalty);
  requireField(repetitionPenalty > 0 && repetitionPenalty <= 10, 'repetition_penalty', 'in (0, 10]', repetitionPenalty);
  const penalised = presencePenalty !== 0 || frequencyPenalty !== 0 || repetitionPenalty !== 1;
  if (logitBias.size === 0 && !penalised && heldBack.length === 0) return undefined;
  const repetition = Math.max(repetitionPenalty, LEAST_REPETITION);
  return { logitBias, presencePenalty, frequencyPenalty, repetitionPenalty: repetition, heldBack, heldBackUntil };
}

/**
 * Token adjustments as a message brings them, checked; undefined where they ask for nothing.
 *
 * @throws PtpError `invalid_argument`, naming field, limit and value
 */
export function receivedAdjustments(given: TokenAdjustments | undefined, vocabulary: number): AdjustParams | undefined {
  if (!given) return undefined;
  const { logitBias, repetitionPenalty, presencePenalty, frequencyPenalty, heldBack, heldBackUntil } = given;
  const biases = new Map(Object.entries(logitBias).map(([id, bias]) => [Number(id), bias]));
  const repetition = repetitionPenalty === 0 ? 1 : repetitionPenalty;
  const penalties = { presencePenalty, frequencyPenalty, repetitionPenalty: repetition };
  return adjustParams({ logitBias: biases, ...penalties, heldBack, heldBackUntil }, vocabulary);
}

const isToken = (id: number, vocabulary: number): boolean => Number.isInteger(id) && id >= 0 && id < vocabulary;

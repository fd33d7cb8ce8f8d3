import type { TokenAdjustments } from './gen/ptp/v1/common_pb.ts';
import { requireField } from './validation.ts';

/**
 * Changes to the logits of single tokens. They depend only on token ids, so the verifier can also apply them at each
 * position of a draft.
 */
export interface AdjustParams {
  /** Values that are added to the logits of these token ids, each in [-100, 100]. */
  readonly logitBias: ReadonlyMap<number, number>;
  /** Penalty that is subtracted once from the logit of each token that was generated earlier. Must be in [-2, 2]. */
  readonly presencePenalty: number;
  /**
   * Penalty that is subtracted from a token's logit once for each earlier occurrence in the generated text. Must be in
   * [-2, 2].
   */
  readonly frequencyPenalty: number;
  /**
   * Penalty for tokens that occur in the prompt or the generated text: their positive logits are divided by it, and
   * their negative logits are multiplied by it. Must be in (0, 10]; 1 has no effect.
   */
  readonly repetitionPenalty: number;
  /** Token ids that are forbidden at positions below `heldBackUntil`. */
  readonly heldBack: readonly number[];
  readonly heldBackUntil: number;
}

/**
 * Minimum repetition penalty. Dividing logits by a smaller number may overflow float32, and repeated tokens already
 * dominate at far higher values.
 */
const MIN_REPETITION_PENALTY = 1e-6;
/** Maximum number of entries in a logit bias. */
const LOGIT_BIAS_LIMIT = 1024;

export const noAdjustment: AdjustParams = {
  logitBias: new Map(),
  presencePenalty: 0,
  frequencyPenalty: 0,
  repetitionPenalty: 1,
  heldBack: [],
  heldBackUntil: 0,
};

/**
 * Validates a request's adjustments. Returns undefined if there are none.
 *
 * @throws PtpError `invalid_argument` with the field's name on the wire
 */
export function adjustParams(
  values: { readonly [K in keyof AdjustParams]?: AdjustParams[K] | null | undefined },
  vocabulary: number,
): AdjustParams | undefined {
  const logitBias = values.logitBias ?? noAdjustment.logitBias;
  const presencePenalty = values.presencePenalty ?? 0;
  const frequencyPenalty = values.frequencyPenalty ?? 0;
  const repetitionPenalty = values.repetitionPenalty ?? 1;
  const heldBackUntil = values.heldBackUntil ?? 0;
  const heldBack = heldBackUntil > 0 ? (values.heldBack ?? []) : [];
  requireField(logitBias.size <= LOGIT_BIAS_LIMIT, 'logit_bias', `at most ${LOGIT_BIAS_LIMIT} entries`, logitBias.size);
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
  const repetition = Math.max(repetitionPenalty, MIN_REPETITION_PENALTY);
  return { logitBias, presencePenalty, frequencyPenalty, repetitionPenalty: repetition, heldBack, heldBackUntil };
}

/**
 * Validates the token adjustments of a message. Returns undefined if there are none.
 *
 * @throws PtpError `invalid_argument`, naming field, limit and value
 */
export function receivedAdjustments(
  message: TokenAdjustments | undefined,
  vocabulary: number,
): AdjustParams | undefined {
  if (!message) return undefined;
  const { logitBias, repetitionPenalty, presencePenalty, frequencyPenalty, heldBack, heldBackUntil } = message;
  const biases = new Map(Object.entries(logitBias).map(([id, bias]) => [Number(id), bias]));
  const repetition = repetitionPenalty === 0 ? 1 : repetitionPenalty;
  const penalties = { presencePenalty, frequencyPenalty, repetitionPenalty: repetition };
  return adjustParams({ logitBias: biases, ...penalties, heldBack, heldBackUntil }, vocabulary);
}

const isToken = (id: number, vocabulary: number): boolean => Number.isInteger(id) && id >= 0 && id < vocabulary;

import { PtpError } from '../errors.ts';

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

/**
 * Changes to one row of logits: `scale` for each of `scaled` first, then `biases` for each of `biased`. Absent ids keep theirs. Tokens that
 * `allowed` leaves out get -Infinity.
 */
export interface Adjustment {
  readonly scaled: Int32Array;
  readonly scale: number;
  readonly biased: Int32Array;
  readonly biases: Float32Array;
  /** [ceil(V / 8)] bit t % 8 of byte t / 8 for token t; all unless given. */
  readonly allowed?: Uint8Array;
}

/** Whether a mask has a token. */
export function isAllowed(allowed: Uint8Array, token: number): boolean {
  return (((allowed[token >> 3] ?? 0) >> (token & 7)) & 1) === 1;
}

/** Nothing changed, but that only this token may be chosen, of V. */
export function only(token: number, vocabulary: number): Adjustment {
  const allowed = new Uint8Array(Math.ceil(vocabulary / 8));
  allowed[token >> 3] = 1 << (token & 7);
  return onlyAllowed(allowed);
}

/** Nothing changed, but that only some tokens may be chosen. */
export function onlyAllowed(allowed: Uint8Array): Adjustment {
  return { scaled: new Int32Array(), scale: 1, biased: new Int32Array(), biases: new Float32Array(), allowed };
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
  check('logit_bias', logitBias.size <= MOST_BIASES, `at most ${MOST_BIASES} entries`, logitBias.size);
  for (const [id, bias] of logitBias) {
    check(`logit_bias`, isToken(id, vocabulary), `of token ids in [0, ${vocabulary - 1}]`, id);
    check(`logit_bias[${id}]`, bias >= -100 && bias <= 100, 'in [-100, 100]', bias);
  }
  for (const id of heldBack) check('held_back', isToken(id, vocabulary), `token ids in [0, ${vocabulary - 1}]`, id);
  check('presence_penalty', Math.abs(presencePenalty) <= 2, 'in [-2, 2]', presencePenalty);
  check('frequency_penalty', Math.abs(frequencyPenalty) <= 2, 'in [-2, 2]', frequencyPenalty);
  check('repetition_penalty', repetitionPenalty > 0 && repetitionPenalty <= 10, 'in (0, 10]', repetitionPenalty);
  const penalised = presencePenalty !== 0 || frequencyPenalty !== 0 || repetitionPenalty !== 1;
  if (logitBias.size === 0 && !penalised && heldBack.length === 0) return undefined;
  const repetition = Math.max(repetitionPenalty, LEAST_REPETITION);
  return { logitBias, presencePenalty, frequencyPenalty, repetitionPenalty: repetition, heldBack, heldBackUntil };
}

/** One sequence's adjustments as it grows. */
export class Adjuster {
  readonly #params: AdjustParams;
  readonly #counts = new Map<number, number>();
  readonly #prompt: ReadonlySet<number>;
  #generated = 0;

  constructor(params: AdjustParams, prompt: readonly number[], generated: readonly number[]) {
    this.#params = params;
    this.#prompt = new Set(params.repetitionPenalty === 1 ? [] : prompt);
    this.push(generated);
  }

  push(tokens: readonly number[]): void {
    for (const token of tokens) this.#counts.set(token, (this.#counts.get(token) ?? 0) + 1);
    this.#generated += tokens.length;
  }

  /** [n + 1] what holds where the target picks: after everything so far, and after each token of a draft of n. */
  along(draft: readonly number[]): Adjustment[] {
    const rows = [this.#row()];
    for (const token of draft) {
      this.push([token]);
      rows.push(this.#row());
    }
    for (const token of draft) this.#forget(token);
    return rows;
  }

  #forget(token: number): void {
    const count = (this.#counts.get(token) ?? 0) - 1;
    if (count > 0) this.#counts.set(token, count);
    else this.#counts.delete(token);
    this.#generated--;
  }

  #row(): Adjustment {
    const { logitBias, presencePenalty, frequencyPenalty, repetitionPenalty, heldBack, heldBackUntil } = this.#params;
    const bias = new Map(logitBias);
    if (presencePenalty !== 0 || frequencyPenalty !== 0) {
      for (const [token, count] of this.#counts) {
        bias.set(token, (bias.get(token) ?? 0) - presencePenalty - frequencyPenalty * count);
      }
    }
    if (this.#generated < heldBackUntil) for (const token of heldBack) bias.set(token, Number.NEGATIVE_INFINITY);
    const scaled = repetitionPenalty === 1 ? [] : new Set([...this.#prompt, ...this.#counts.keys()]);
    return {
      scaled: Int32Array.from(scaled),
      scale: repetitionPenalty,
      biased: Int32Array.from(bias.keys()),
      biases: Float32Array.from(bias.values()),
    };
  }
}

/** logits [V] as an adjustment makes them, float32: the reference for `adjusted` in training/src/ptp_train/graph_adjust.py. */
export function adjusted(logits: Float32Array, { scaled, scale, biased, biases, allowed }: Adjustment): Float32Array {
  const out = logits.slice();
  const factor = Math.fround(scale);
  for (const id of scaled) {
    const logit = out[id] as number;
    out[id] = logit > 0 ? logit / factor : logit * factor;
  }
  for (const [i, id] of biased.entries()) out[id] = (out[id] as number) + (biases[i] as number);
  if (allowed) for (const id of out.keys()) if (!isAllowed(allowed, id)) out[id] = Number.NEGATIVE_INFINITY;
  return out;
}

const isToken = (id: number, vocabulary: number): boolean => Number.isInteger(id) && id >= 0 && id < vocabulary;

function check(field: string, valid: boolean, limit: string, value: number): void {
  if (!valid) throw new PtpError('invalid_argument', `\`${field}\` must be ${limit}, got ${value}`, { field });
}

import type { AdjustParams } from '@ptp/protocol/token-adjustments';

/** Changes to one row of logits, applied in the order scale, biases, mask. */
export interface Adjustment {
  /** Token ids to scale: positive logits are divided by `scale`, other logits are multiplied by it. */
  readonly scaled: Int32Array;
  readonly scale: number;
  /** [n] token ids to bias. */
  readonly biased: Int32Array;
  /** [n] values to add to the logits of the tokens in `biased`. */
  readonly biases: Float32Array;
  /** [ceil(V / 8)] bit t % 8 of byte t / 8 is set if token t may be picked. Default: any token may be picked. */
  readonly allowed?: Uint8Array;
}

/** Returns the bit of a token in a mask. */
export function isAllowed(allowed: Uint8Array, token: number): boolean {
  return (((allowed[token >> 3] ?? 0) >> (token & 7)) & 1) === 1;
}

/** Returns an adjustment that allows only a single token. */
export function allowToken(token: number, vocabulary: number): Adjustment {
  const allowed = new Uint8Array(Math.ceil(vocabulary / 8));
  allowed[token >> 3] = 1 << (token & 7);
  return allowOnly(allowed);
}

/** Returns an adjustment that allows only the tokens of a mask. */
export function allowOnly(allowed: Uint8Array): Adjustment {
  return { scaled: new Int32Array(), scale: 1, biased: new Int32Array(), biases: new Float32Array(), allowed };
}

/** Returns the tokens that an adjustment makes more probable, and the number of other tokens that it changes. */
export function changedTokens(adjustment: Adjustment | undefined): { raised: readonly number[]; lowered: number } {
  if (!adjustment) return { raised: [], lowered: 0 };
  const { scaled, scale, biased, biases } = adjustment;
  const raised = new Set(biased.filter((_, i) => (biases[i] as number) > 0));
  if (scale < 1) for (const id of scaled) raised.add(id);
  return { raised: [...raised], lowered: new Set([...scaled, ...biased]).size - raised.size };
}

/** Returns the tokens that a mask allows, or undefined if there are more than `limit`. */
export function allowedTokens(mask: Uint8Array, vocabulary: number, limit: number): number[] | undefined {
  const ids: number[] = [];
  for (let i = 0; i < mask.length; i++) {
    if (mask[i] === 0) continue;
    for (let id = 8 * i; id < Math.min(8 * i + 8, vocabulary); id++) if (isAllowed(mask, id)) ids.push(id);
    if (ids.length > limit) return undefined;
  }
  return ids;
}

/** Computes the biases and penalties of a growing sequence. */
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

  /** Returns [n + 1] adjustments: one for the next pick, and one for the pick after each of the n tokens of a draft. */
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

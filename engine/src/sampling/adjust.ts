import type { AdjustParams } from '@ptp/protocol/token-adjustments';

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
export function allowToken(token: number, vocabulary: number): Adjustment {
  const allowed = new Uint8Array(Math.ceil(vocabulary / 8));
  allowed[token >> 3] = 1 << (token & 7);
  return allowOnly(allowed);
}

/** Nothing changed, but that only some tokens may be chosen. */
export function allowOnly(allowed: Uint8Array): Adjustment {
  return { scaled: new Int32Array(), scale: 1, biased: new Int32Array(), biases: new Float32Array(), allowed };
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

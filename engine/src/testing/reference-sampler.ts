import { PtpError } from '@ptp/protocol/errors';
import type { SamplingParams } from '@ptp/protocol/sampling-params';
import { type Adjustment, isAllowed } from '../sampling/adjust.ts';
import type { ShapedDistribution } from '../sampling/pick.ts';

const f32 = Math.fround;

/**
 * Shapes logits into the distribution from which a token is picked, in this order: temperature, min-p, top-k, top-p,
 * renormalise. Float32 throughout: this is the reference for the sampler inside the ONNX graph.
 *
 * Tokens are ranked by probability, descending, the lower id first on ties. A token of rank r is kept if r < topK and
 * if the tokens ranked above it sum to less than topP, as probabilities renormalised within top-k (nucleus sampling:
 * Holtzman et al. 2020, with the token that crosses topP kept). Tokens less probable than minP times the most probable
 * one are left out before (Nguyen et al. 2024). topK = 0, topP = 1 and minP = 0 are off. Temperature 0 keeps the argmax
 * alone. A token whose float32 probability is 0 is not kept.
 *
 * @param logits [V] float32, V >= 1; -Infinity excludes a token
 * @throws PtpError `internal` if a logit is NaN or +Infinity, or if all are -Infinity
 */
export function shape(logits: Float32Array, params: SamplingParams): ShapedDistribution {
  const best = argmax(logits);
  if (params.temperature === 0) return renormalise(logits.length, [best], [1]);

  const temperature = f32(params.temperature);
  const scaled = logits.map((logit) => logit / temperature);
  const top = scaled[best] as number;
  const weight = (id: number): number => f32(Math.exp(f32((scaled[id] as number) - top)));

  const minP = f32(params.minP ?? 0);
  const ranked = rank(scaled)
    .slice(0, params.topK || logits.length)
    .filter((id) => weight(id) >= minP);
  const weights = ranked.map(weight);
  const total = sum(weights);
  const topP = f32(params.topP);

  let above = 0;
  const keptWeights: number[] = [];
  for (const w of weights) {
    if (w === 0 || (topP < 1 && above >= topP)) break;
    keptWeights.push(w);
    above = f32(above + f32(w / total));
  }
  return renormalise(logits.length, ranked, keptWeights);
}

/** Id of the largest logit, the lowest id on ties. */
function argmax(logits: Float32Array): number {
  let best = 0;
  for (let id = 0; id < logits.length; id++) {
    const logit = logits[id] as number;
    if (Number.isNaN(logit)) throw new PtpError('internal', `logit of token ${id} is NaN`);
    if (logit > (logits[best] as number)) best = id;
  }
  if (!Number.isFinite(logits[best])) throw new PtpError('internal', `the largest logit is ${logits[best]}`);
  return best;
}

/** Ids by logit, descending, the lower id first on ties. */
function rank(logits: Float32Array): number[] {
  const ids = Array.from(logits, (_, id) => id);
  return ids.sort((a, b) => (logits[b] as number) - (logits[a] as number) || a - b);
}

/** Spreads the first `weights.length` ranked tokens over the vocabulary, with probabilities that sum to 1. */
function renormalise(size: number, ranked: readonly number[], weights: readonly number[]): ShapedDistribution {
  const kept = ranked.slice(0, weights.length);
  const total = sum(weights);
  const probabilities = new Float32Array(size);
  for (const [rank, id] of kept.entries()) probabilities[id] = (weights[rank] as number) / total;
  return { probabilities, kept: kept.sort((a, b) => a - b) };
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => f32(total + value), 0);
}

/**
 * Applies an adjustment to logits [V], float32: the reference for `adjusted` in
 * training/src/ptp_train/export/graphs/adjust.py.
 */
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

import { sharedLength } from '../prefix-blocks.ts';
import type { SequenceId, TargetEngine } from '../types.ts';
import { mix, START } from './fake-language.ts';

/** Returns the logits [V] after each token from index `from` on. A constant may be added to all logits of a row. */
export type TokenScorer = (tokens: readonly number[], from: number) => Promise<Float32Array[]>;

const GREEDY = { temperature: 0, topK: 0, topP: 1 };
/** Number of sequences whose caches an engine scorer keeps. */
const KEPT = 4;
/** Number of tokens in one run. */
const CHUNK = 128;
/**
 * Scale of the exponential distribution of hash logits. The most probable token then often has a probability above 0.5.
 */
const SHARPNESS = 2;

/** Returns logits that are hashes of all tokens before them, for a language without a model. */
export function hashScorer(vocabulary: number): TokenScorer {
  return async (tokens, from) => {
    let hash = START;
    const rows: Float32Array[] = [];
    for (const [i, token] of tokens.entries()) {
      hash = mix(hash, token);
      if (i < from) continue;
      const logits = Float32Array.from({ length: vocabulary }, (_, id) => {
        return -SHARPNESS * Math.log((mix(hash, id) + 1) / 2 ** 32);
      });
      rows.push(logits);
    }
    return rows;
  };
}

/** Returns the log-probabilities of an engine that can return alternatives for the whole vocabulary. */
export function engineScorer(engine: TargetEngine): TokenScorer {
  const { vocabulary } = engine.info;
  const uniforms = { seed: 0n, offset: 0 };
  /** Sequences with their tokens. The one used last is at the end. */
  const kept: { sequence: SequenceId; tokens: readonly number[] }[] = [];
  let queue: Promise<unknown> = Promise.resolve();

  async function score(tokens: readonly number[], from: number): Promise<Float32Array[]> {
    const shared = kept.map((entry) => sharedLength(entry.tokens, tokens));
    const best = shared.indexOf(Math.max(...shared));
    const reuses = best >= 0 && ((shared[best] as number) > 0 || kept.length === KEPT);
    const entry = (reuses && kept.splice(best, 1)[0]) || { sequence: engine.open(), tokens: [] };
    const { sequence } = entry;
    const start = Math.min(reuses ? (shared[best] as number) : 0, from);
    const rows: Float32Array[] = [];
    for (let at = start; at < tokens.length; ) {
      // Rows before `from` are only written.
      const end = Math.min(at + CHUNK, at < from ? from : tokens.length);
      const picks = at < from ? {} : { sampling: GREEDY, uniforms, topCount: vocabulary };
      const { outputs } = await engine.run([{ sequence, at, tokens: tokens.slice(at, end), ...picks }]);
      const { topIds = [], topLogProbabilities = [] } = outputs[0] ?? {};
      for (let i = 0; i < topIds.length; i++) {
        if (i % vocabulary === 0) rows.push(new Float32Array(vocabulary));
        (rows.at(-1) as Float32Array)[topIds[i] as number] = topLogProbabilities[i] as number;
      }
      at = end;
    }
    kept.push({ sequence, tokens });
    return rows;
  }

  return (tokens, from) => {
    const result = queue.then(() => score(tokens, from));
    queue = result.catch(() => {});
    return result;
  };
}

import { randomTokens } from './sampling/uniforms.ts';
import type { RunResult, TargetEngine, TargetOutput, TargetSlot } from './types.ts';

export interface BatchInvariance {
  /** True if each token's results were bit-identical in all batches and chunks. */
  readonly invariant: boolean;
  /**
   * Number of compared rows. The check ends at the first difference, because it would take minutes for a large model on
   * a CPU.
   */
  readonly rows: number;
  /** False if the time limit ended the check before all comparisons. */
  readonly complete: boolean;
}

/** Number of tokens in the test text, as in a chunk of a prompt: some kernels add in another order in long runs. */
const LENGTH = 128;
/** Number of tokens at the beginning of the text that are compared, more than in most drafts. */
const COMPARED = 24;
/** Chunk lengths to compare, in tokens per run. */
const CHUNKS = [5, 9, 1, 2] as const;

/**
 * Runs a text in one piece, in chunks and in batches with other sequences, and compares the target's picks and
 * log-probabilities bit by bit. Lossless decoding depends on equal results: on some machines, kernels choose the order
 * of additions by the size of a run.
 *
 * Ends at the first difference or after `budgetMs`, because all comparisons would take minutes for a large model on a
 * CPU.
 *
 * @param onRun function that is called after each run with the number of runs so far
 */
export async function checkBatchInvariance(
  engine: TargetEngine,
  budgetMs = Number.POSITIVE_INFINITY,
  onRun: (runs: number) => void = () => {},
): Promise<BatchInvariance> {
  const started = performance.now();
  const { vocabulary, maxSlots, contextLength } = engine.info;
  const length = Math.min(LENGTH, contextLength - 1);
  const compared = Math.min(COMPARED, length);
  const text = randomTokens(1n, length, vocabulary);
  const part = (at: number, count: number) => ({
    at,
    tokens: text.slice(at, at + count),
    sampling: { temperature: 1, topK: 0, topP: 1 },
    uniforms: { seed: 2n, offset: 0 },
    roughScores: true,
  });

  let runs = 0;
  const run = async (slots: readonly TargetSlot[]): Promise<RunResult<TargetOutput>> => {
    const result = await engine.run(slots);
    onRun(++runs);
    return result;
  };

  /** Runs the beginning on one sequence, `chunk` tokens at a time, together with `others` similar sequences. */
  const rowsOf = async (chunk: number, others: number, end = compared): Promise<string[]> => {
    const sequences = Array.from({ length: 1 + others }, () => engine.open());
    try {
      const rows: string[] = [];
      for (let at = 0; at < end; at += chunk) {
        const count = Math.min(chunk, end - at);
        const slots = sequences.map((sequence, i) => ({
          sequence,
          ...part(at, i === 0 ? count : Math.max(1, count - i)),
        }));
        const { outputs } = await run(slots);
        rows.push(...rowsIn(outputs[0] as TargetOutput));
        // The other sequences ran shorter chunks. Complete their rows, so that all sequences continue at the same row.
        if (others > 0) await run(sequences.slice(1).map((sequence) => ({ sequence, ...part(at, count) })));
      }
      return rows;
    } finally {
      for (const sequence of sequences) engine.close(sequence);
    }
  };

  const reference = await rowsOf(length, 0, length);
  const batches = new Set([0, Math.min(1, maxSlots - 1), maxSlots - 1]);
  const comparisons = CHUNKS.flatMap((chunk) => [...batches].map((others) => ({ chunk, others })));
  let rows = 0;
  for (const [done, { chunk, others }] of comparisons.entries()) {
    // The first comparison always runs, so that every result says something about the engine.
    if (done > 0 && performance.now() - started > budgetMs) return { invariant: true, rows, complete: false };
    const found = await rowsOf(chunk, others);
    rows += found.length;
    if (found.some((row, i) => row !== reference[i])) return { invariant: false, rows, complete: true };
  }
  return { invariant: true, rows, complete: true };
}

/** Describes each row by its pick and the bits of the log-probability. */
function rowsIn({ picks, logProbabilities }: TargetOutput): string[] {
  const bits = new Int32Array(logProbabilities.slice().buffer);
  return Array.from(picks, (pick, i) => `${pick} ${bits[i]}`);
}

import { randomTokens } from './sampling/uniforms.ts';
import type { TargetEngine, TargetOutput } from './types.ts';

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
/**
 * Chunk lengths to compare, in tokens per run; the last one repeats. The first list contains every length, so that a
 * check cut short by the time limit has still tried each of them.
 */
const CHUNKS = [[9, 1, 2, 5, 1, 2, 1, 2, 1], [5], [9], [1], [2]] as const;

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
  const elapsedMs = stopwatch();
  const { vocabulary, maxSlots, contextLength, prefillChunk = LENGTH } = engine.info;
  const length = Math.min(LENGTH, prefillChunk, contextLength - 1);
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
  /** Runs the beginning on one sequence in `chunks`, together with shorter chunks of `others` similar sequences. */
  const rowsOf = async (chunks: readonly number[], others: number, end = compared): Promise<string[]> => {
    const sequences = Array.from({ length: 1 + others }, () => ({ sequence: engine.open(), at: 0 }));
    try {
      const rows: string[] = [];
      for (let i = 0; rows.length < end; i++) {
        const count = Math.min(chunks[i] ?? (chunks.at(-1) as number), end - rows.length);
        const slots = sequences.map(({ sequence, at }, k) => ({ sequence, ...part(at, Math.max(1, count - k)) }));
        const { outputs } = await engine.run(slots);
        onRun(++runs);
        rows.push(...rowsIn(outputs[0] as TargetOutput));
        for (const [k, { tokens }] of slots.entries()) (sequences[k] as { at: number }).at += tokens.length;
      }
      return rows;
    } finally {
      for (const { sequence } of sequences) engine.close(sequence);
    }
  };

  const reference = await rowsOf([length], 0, length);
  // The first comparison is the only one that always runs, so it has both short chunks and the largest batch.
  const batches = new Set([maxSlots - 1, 0, Math.min(1, maxSlots - 1)]);
  const comparisons = CHUNKS.flatMap((chunks) => [...batches].map((others) => ({ chunks, others })));
  let rows = 0;
  for (const [done, { chunks, others }] of comparisons.entries()) {
    if (done > 0 && elapsedMs() > budgetMs) return { invariant: true, rows, complete: false };
    const found = await rowsOf(chunks, others);
    rows += found.length;
    if (found.some((row, i) => row !== reference[i])) return { invariant: false, rows, complete: true };
  }
  return { invariant: true, rows, complete: true };
}

/**
 * Returns a function that gives the elapsed CPU time in milliseconds, at most the wall-clock time: a busy machine must
 * not shorten a check whose result is stored. Engines in other processes use no CPU time here, so at least a quarter of
 * the wall-clock time counts.
 */
function stopwatch(): () => number {
  const [started, cpuAtStart] = [performance.now(), process.cpuUsage()];
  return () => {
    const elapsed = performance.now() - started;
    const { user, system } = process.cpuUsage(cpuAtStart);
    return Math.max(Math.min(elapsed, (user + system) / 1000), elapsed / 4);
  };
}

/** Describes each row by its pick and the bits of the log-probability. */
function rowsIn({ picks, logProbabilities }: TargetOutput): string[] {
  const bits = new Int32Array(logProbabilities.slice().buffer);
  return Array.from(picks, (pick, i) => `${pick} ${bits[i]}`);
}

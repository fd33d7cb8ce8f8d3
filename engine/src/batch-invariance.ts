import { uniforms } from './sampling/uniforms.ts';
import type { TargetEngine, TargetOutput } from './types.ts';

/** What the check found. */
export interface BatchInvariance {
  /** Whether a token's row was bit for bit the same, whatever it was run with. */
  readonly invariant: boolean;
  /** Rows that were compared. */
  readonly rows: number;
}

/** Tokens of the text that is run in several ways; more than the longest draft. */
const LENGTH = 24;
/** How many of them a run has at once. */
const CHUNKS = [1, 2, 5, 9] as const;

/**
 * Runs a text whole, in chunks, and beside others, and compares what the target picks and its log-probabilities bit by bit. The promise
 * that the text does not depend on drafts and batches rests on this (docs/design.md); kernels that choose another order of additions
 * by the size of a run would break it, and which ones do depends on the machine.
 */
export async function checkBatchInvariance(engine: TargetEngine): Promise<BatchInvariance> {
  const { vocabulary, uniformsPerPosition: dimensions, maxSlots, contextLength } = engine.info;
  const length = Math.min(LENGTH, contextLength - 1);
  const text = Array.from(uniforms(1n, 0, length), (u) => Math.floor(u * vocabulary));
  const u = uniforms(2n, 0, length, dimensions);
  const part = (at: number, count: number) => ({
    at,
    tokens: text.slice(at, at + count),
    sampling: { temperature: 1, topK: 0, topP: 1 },
    u: u.slice(at * dimensions, (at + count) * dimensions),
  });

  /** The text on one sequence, `chunk` tokens a run, with other sequences that begin as it does in the same runs. */
  const rowsOf = async (chunk: number, others: number): Promise<Row[]> => {
    const sequences = Array.from({ length: 1 + others }, () => engine.open());
    try {
      const rows: Row[] = [];
      for (let at = 0; at < length; at += chunk) {
        const slots = sequences.map((sequence, i) => ({
          sequence,
          ...part(at, i === 0 ? chunk : Math.max(1, chunk - i)),
        }));
        const { outputs } = await engine.run(slots);
        rows.push(...rowsIn(outputs[0] as TargetOutput));
        // the shorter ones' rows are filled up, so that all are at the same place again
        if (others > 0) await engine.run(sequences.slice(1).map((sequence) => ({ sequence, ...part(at, chunk) })));
      }
      return rows;
    } finally {
      for (const sequence of sequences) engine.close(sequence);
    }
  };
  const reference = await rowsOf(length, 0);
  let [rows, different] = [0, 0];
  for (const others of new Set([0, Math.min(1, maxSlots - 1), maxSlots - 1])) {
    for (const chunk of CHUNKS) {
      for (const [i, row] of (await rowsOf(chunk, others)).entries()) {
        rows++;
        if (row.pick !== reference[i]?.pick || row.bits !== reference[i]?.bits) different++;
      }
    }
  }
  return { invariant: different === 0, rows };
}

interface Row {
  readonly pick: number | undefined;
  /** Of the log-probability. */
  readonly bits: number | undefined;
}

function rowsIn({ picks, logProbabilities }: TargetOutput): Row[] {
  const bits = new Int32Array(logProbabilities.slice().buffer);
  return Array.from(picks, (pick, i) => ({ pick, bits: bits[i] }));
}

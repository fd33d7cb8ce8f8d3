import { inspect } from 'node:util';
import { createLogger } from '@ptp/service-kit/log';
import fc from 'fast-check';

export const SEED = Number(process.env.PTP_FUZZ_SEED ?? 1);
/** Inputs under way at once; 1 to find out which one it was. */
export const LANES = Number(process.env.PTP_FUZZ_LANES ?? 8);
/** Inputs between two looks at what they left behind. */
const ROUND = 1000;
/** Longer runs tell how far they are. */
const TOLD_FROM = 5 * ROUND;

export interface Fuzz<T> {
  /** What the inputs are. */
  readonly what: string;
  readonly count: number;
  readonly inputs: fc.Arbitrary<T>;
  /** Sends one and says what came of it; throws if that must not be, {@link Unreachable} where it shall be sent again. */
  readonly attempt: (input: T, lane: number) => Promise<string>;
  /** Throws if inputs that have been answered left something behind. */
  readonly atRest: () => Promise<void>;
}

/**
 * No service was reachable. It need not be the input's fault: where other programs take a machine's time, the services, which are in this
 * process, miss their own pings. The next time it is.
 */
export class Unreachable extends Error {}

/** Tries inputs, several at once, and fails with a small one that is not answered as it should be. @returns how often each outcome came */
export async function fuzz<T>({ what, count, inputs, attempt, atRest }: Fuzz<T>): Promise<Record<string, number>> {
  const seen: Record<string, number> = {};
  const began = performance.now();
  let failed: number | undefined;
  const tries = (lane: number, numRuns: number, seed: number) => {
    const property = fc.asyncProperty(inputs, async (input) => {
      if (failed !== undefined && failed !== lane) return;
      try {
        const outcome = await attempt(input, lane).catch((error) => {
          if (!(error instanceof Unreachable)) throw error;
          seen['sent again'] = (seen['sent again'] ?? 0) + 1;
          return attempt(input, lane);
        });
        seen[outcome] = (seen[outcome] ?? 0) + 1;
      } catch (error) {
        failed ??= lane;
        if (failed === lane) throw error;
      }
    });
    return fc.check(property, { numRuns, seed });
  };
  for (let done = 0; done < count; ) {
    const round = Math.min(ROUND, count - done);
    const lanes = Array.from({ length: Math.min(LANES, round) }, (_, lane) => lane);
    const share = (lane: number) => Math.floor((round + lane) / lanes.length);
    const runs = await Promise.all(lanes.map((lane) => tries(lane, share(lane), SEED * 2 ** 20 + done + lane)));
    for (const run of runs) if (run.failed) throw failure(what, run.counterexample?.[0], run.errorInstance);
    await atRest();
    done += round;
    if (count >= TOLD_FROM && (done % TOLD_FROM === 0 || done === count)) tell(what, done, count, began, seen);
  }
  return seen;
}

/** A logger, and what it was told of faults of our own: of errors, but for those of {@link Unreachable}. */
export function errorLog() {
  const lines: string[] = [];
  const write = (line: string) => {
    if (!/"status":50[34]/.test(line)) lines.push(line);
  };
  return { lines, logger: createLogger('fuzz', { PTP_LOG_LEVEL: 'error' }, { write }) };
}

function failure(what: string, input: unknown, cause: unknown): Error {
  const shown = inspect(input, { depth: 12, maxStringLength: 500, maxArrayLength: 40, breakLength: 120 });
  return new Error(`${what}, PTP_FUZZ_SEED=${SEED}: ${(cause as Error | null)?.message}\n${shown}`, { cause });
}

function tell(what: string, done: number, count: number, began: number, seen: Readonly<Record<string, number>>): void {
  const seconds = Math.round((performance.now() - began) / 1000);
  const outcomes = Object.entries(seen).sort(([, a], [, b]) => b - a);
  const told = outcomes.map(([outcome, times]) => `${outcome} ${times}`).join(', ');
  console.log(`${what}: ${done} of ${count} in ${seconds} s: ${told}`);
}

import { inspect } from 'node:util';
import { createLogger } from '@ptp/service-kit/log';
import fc from 'fast-check';
import { measureLoopDelay } from '../../bench/chaos/loop-delay.ts';

export const SEED = Number(process.env.PTP_FUZZ_SEED ?? 1);
/** Number of inputs tried concurrently. Set PTP_FUZZ_LANES to 1 to identify the input that fails. */
export const LANES = Number(process.env.PTP_FUZZ_LANES ?? 8);
/** Number of inputs between two calls of `atRest`. */
const ROUND = 1000;
/** Number of inputs between two progress reports. */
const REPORT_EVERY = 5 * ROUND;

/**
 * Maximum time in milliseconds (p99.9) for which an input may hold the event loop, in a run with progress reports. The
 * inputs are made in the same process.
 */
const HELD_MS = Number(process.env.PTP_FUZZ_HELD_MS ?? 30);

export interface Fuzz<T> {
  /** Name of the inputs in reports and errors. */
  readonly what: string;
  readonly count: number;
  readonly inputs: fc.Arbitrary<T>;
  /**
   * Sends one input and returns its outcome.
   *
   * @throws Error for a forbidden outcome, {@link Unreachable} to send the input again
   */
  readonly attempt: (input: T, lane: number) => Promise<string>;
  /** Checks the state between inputs. @throws Error if sequences of answered inputs are still open */
  readonly atRest: () => Promise<void>;
}

/**
 * Error that no service was reachable. On a busy machine, the services, which run in this process, miss their own
 * pings, so the input gets a second attempt.
 */
export class Unreachable extends Error {}

/**
 * Tries inputs concurrently. Fails with the smallest input it finds whose outcome is forbidden.
 *
 * @returns number of each outcome
 */
export async function fuzz<T>({ what, count, inputs, attempt, atRest }: Fuzz<T>): Promise<Record<string, number>> {
  const seen: Record<string, number> = {};
  const began = performance.now();
  const loop = measureLoopDelay();
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
    if (count >= REPORT_EVERY && (done % REPORT_EVERY === 0 || done === count))
      reportProgress(what, done, count, began, seen);
  }
  loop.stop();
  if (count >= REPORT_EVERY) checkHeld(what, loop.read().held.p999);
  return seen;
}

function checkHeld(what: string, millis: number): void {
  const line = `${what}: the event loop was held for ${millis} ms (p99.9)`;
  if (millis > HELD_MS) throw new Error(`${line}, at most ${HELD_MS} ms is allowed`);
  console.log(line);
}

/** Creates a logger that keeps all errors except {@link Unreachable}. */
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

function reportProgress(
  what: string,
  done: number,
  count: number,
  began: number,
  seen: Readonly<Record<string, number>>,
): void {
  const seconds = Math.round((performance.now() - began) / 1000);
  const outcomes = Object.entries(seen).sort(([, a], [, b]) => b - a);
  const counts = outcomes.map(([outcome, times]) => `${outcome} ${times}`).join(', ');
  console.log(`${what}: ${done} of ${count} in ${seconds} s: ${counts}`);
}

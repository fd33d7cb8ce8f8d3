import { openSync, readFileSync, readSync } from 'node:fs';
import { createHistogram, type RecordableHistogram } from 'node:perf_hooks';
import { writeWhole } from './write-whole.ts';

/** Interval of the timers in milliseconds. The delay is the time beyond this interval. */
const RESOLUTION_MS = 10;
/** Interval in milliseconds at which the delay is written. */
const WRITE_MS = 1_000;

/** Percentiles in milliseconds. */
export interface LoopDelay {
  readonly p50: number;
  readonly p999: number;
  readonly max: number;
}

export interface LoopDelays {
  /** Time by which timers were late. */
  readonly delay: LoopDelay;
  /** The part of the delay in which the thread ran or was blocked, without the time in which it waited for a core. */
  readonly held: LoopDelay;
}

/** Measures the event loop of this thread from now on. */
export function measureLoopDelay() {
  const [delay, held] = [createHistogram(), createHistogram()];
  let before = { at: performance.now(), waited: waitedForCore() };
  const timer = setInterval(() => {
    const now = { at: performance.now(), waited: waitedForCore() };
    const late = now.at - before.at - RESOLUTION_MS;
    record(delay, late);
    record(held, timeHeld(late, now.waited - before.waited));
    before = now;
  }, RESOLUTION_MS).unref();
  return {
    read: (): LoopDelays => ({ delay: millisOf(delay), held: millisOf(held) }),
    reset() {
      delay.reset();
      held.reset();
    },
    stop: () => clearInterval(timer),
  };
}

/** Returns the part of a delay that the thread itself caused. All durations are in milliseconds. */
export function timeHeld(late: number, waited: number): number {
  return Math.max(0, late - waited);
}

/** Writes the delays of this process to a file, every second. SIGUSR2 starts the measurement again. */
export function recordLoopDelay(path: string): void {
  const measured = measureLoopDelay();
  process.on('SIGUSR2', measured.reset);
  setInterval(() => writeWhole(path, JSON.stringify(measured.read())), WRITE_MS).unref();
}

export function readLoopDelay(path: string): LoopDelays {
  return JSON.parse(readFileSync(path, 'utf8'));
}

/** Returns a function that reads the time in milliseconds for which this thread has waited for a core so far. */
function coreWaits(): () => number {
  // On other systems, the whole delay counts.
  if (process.platform !== 'linux') return () => 0;
  const statistics = openSync('/proc/thread-self/schedstat', 'r');
  const bytes = Buffer.alloc(100);
  return () => {
    const length = readSync(statistics, bytes, 0, bytes.length, 0);
    return Number(bytes.toString('latin1', 0, length).split(' ')[1]) / 1e6;
  };
}

const waitedForCore = coreWaits();

/** Records milliseconds in a histogram of microseconds. */
function record(histogram: RecordableHistogram, millis: number): void {
  histogram.record(Math.max(1, Math.round(millis * 1000)));
}

function millisOf(histogram: RecordableHistogram): LoopDelay {
  const millis = (micros: number) => Math.round(micros / 100) / 10;
  return {
    p50: millis(histogram.percentile(50)),
    p999: millis(histogram.percentile(99.9)),
    max: millis(histogram.max),
  };
}

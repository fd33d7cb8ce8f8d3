import { readFileSync } from 'node:fs';
import { createHistogram, type Histogram, monitorEventLoopDelay } from 'node:perf_hooks';
import { writeWhole } from './write-whole.ts';

/** Interval of the timers in milliseconds. The delay is the time beyond this interval. */
const RESOLUTION_MS = 10;
/** Interval in milliseconds at which the delay is written. */
const WRITE_MS = 1_000;

/** Delay of an event loop, or CPU time of one turn, in milliseconds. */
export interface LoopDelay {
  readonly p50: number;
  readonly p999: number;
  readonly max: number;
}

export interface LoopDelays {
  /** Time by which timers were late, which includes the time in which the thread waited for a core. */
  readonly delay: LoopDelay;
  /** CPU time of the thread between two timers, which a busy machine does not extend. */
  readonly cpu: LoopDelay;
}

/** Measures the event loop of this thread from now on. */
export function measureLoopDelay() {
  const delay = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
  const cpu = createHistogram();
  let before = cpuMicros();
  const timer = setInterval(() => {
    const now = cpuMicros();
    cpu.record(Math.max(1, now - before));
    before = now;
  }, RESOLUTION_MS).unref();
  delay.enable();
  return {
    read: (): LoopDelays => ({ delay: millisOf(delay, 1e6, RESOLUTION_MS), cpu: millisOf(cpu, 1e3, 0) }),
    reset() {
      delay.reset();
      cpu.reset();
    },
    stop() {
      delay.disable();
      clearInterval(timer);
    },
  };
}

/**
 * Returns the time in milliseconds, p99.9, for which the event loop was held, minus the delay of an idle process on the
 * same machine. The time in which the thread waited for a core does not count. The delay of the idle process is
 * subtracted because input accumulates during this wait and makes the next turn longer.
 */
export function timeHeld({ delay, cpu }: LoopDelays, idle?: LoopDelays): number {
  return Math.max(0, Math.min(delay.p999, cpu.p999) - (idle?.delay.p999 ?? 0));
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

function cpuMicros(): number {
  const { user, system } = process.threadCpuUsage();
  return user + system;
}

function millisOf(histogram: Histogram, unit: number, expected: number): LoopDelay {
  const millis = (value: number) => Math.round(Math.max(0, value / unit - expected) * 10) / 10;
  return {
    p50: millis(histogram.percentile(50)),
    p999: millis(histogram.percentile(99.9)),
    max: millis(histogram.max),
  };
}

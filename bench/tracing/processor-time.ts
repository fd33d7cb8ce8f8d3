import { readdirSync, readFileSync } from 'node:fs';

/** Processor time that a process has used so far, in microseconds. */
export interface ProcessorTime {
  /** Time of the main thread, which runs the service's own code; engines have their own threads. */
  readonly main: number;
  /** Time of all threads. */
  readonly all: number;
}

/** Reads /proc. The times are NaN on systems without /proc. */
export function processorTime(pid: number): ProcessorTime {
  try {
    const tasks = readdirSync(`/proc/${pid}/task`);
    const times = new Map(tasks.map((task) => [task, micros(`/proc/${pid}/task/${task}/schedstat`)]));
    return { main: times.get(String(pid)) ?? Number.NaN, all: [...times.values()].reduce((a, b) => a + b, 0) };
  } catch {
    return { main: Number.NaN, all: Number.NaN };
  }
}

/** https://docs.kernel.org/scheduler/sched-stats.html: the first number is nanoseconds on a processor. */
function micros(file: string): number {
  return Number(readFileSync(file, 'utf8').split(' ')[0]) / 1000;
}

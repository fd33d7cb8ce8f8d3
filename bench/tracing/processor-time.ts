import { readdirSync, readFileSync } from 'node:fs';

/** Processor time of a process so far, in microseconds. */
export interface ProcessorTime {
  /** The thread that runs a service's own code; engines have their own threads. */
  readonly main: number;
  readonly all: number;
}

/** Reads /proc; NaN where there is none. */
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

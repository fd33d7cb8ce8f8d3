import { stepFigures } from '../decode/step-figures.ts';
import type { CallRecord, RequestTrace } from './request-trace.ts';

const TRACKS = { gateway: 1, verifier: 2, drafter: 3 } as const;

/**
 * Converts a request to Chrome's trace event format, for ui.perfetto.dev and chrome://tracing. The gateway's steps, the
 * verifier and the drafter have one track each. The slice of a call contains the slices of its queue time and its run.
 *
 * https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
 */
export function perfettoTrace(trace: RequestTrace) {
  const steps = trace.kept.flatMap(({ start, stats, tokens, calls, branch }) => {
    const args = { ...stepFigures(stats), tokens, branch_taken: branch ?? null };
    return [slice('gateway', `step ${stats.step}`, start, stats.stepMicros, args), ...calls.flatMap(callSlices)];
  });
  const whole = slice('gateway', 'request', 0, trace.duration(), {});
  return {
    displayTimeUnit: 'ms',
    otherData: trace.summary(),
    traceEvents: [
      meta('process_name', 0, { name: `request ${trace.id}` }),
      ...Object.entries(TRACKS).map(([name, tid]) => meta('thread_name', tid, { name })),
      ...Object.values(TRACKS).map((tid) => meta('thread_sort_index', tid, { sort_index: tid })),
      whole,
      ...trace.opening.flatMap(callSlices),
      ...steps,
    ],
  };
}

function callSlices(call: CallRecord) {
  const { service, kind, start_us, us, queue_us, run_us, ...args } = call;
  const run = runStart(call);
  const parts = [
    slice(service, 'queue', run - queue_us, queue_us, {}),
    slice(service, 'run', run, run_us, { batch_size: call.batch_size }),
  ];
  return [slice(service, kind, start_us, us, args), ...parts.filter(({ dur }) => dur > 0)];
}

/**
 * Returns the start of a call's run in microseconds. Clocks differ between hosts, so the services report durations
 * instead of timestamps. The remaining network time is split evenly between request and response.
 */
function runStart({ start_us, us, queue_us, run_us }: CallRecord): number {
  return start_us + Math.max(0, Math.floor((us - queue_us - run_us) / 2)) + queue_us;
}

/** Returns a slice of a track. All times are in microseconds. */
function slice(track: keyof typeof TRACKS, name: string, ts: number, dur: number, args: object) {
  return { name, cat: track, ph: 'X', pid: 1, tid: TRACKS[track], ts, dur, args };
}

/** Returns the metadata of a track, such as its name. */
function meta(name: string, tid: number, args: object) {
  return { name, ph: 'M', pid: 1, tid, args };
}

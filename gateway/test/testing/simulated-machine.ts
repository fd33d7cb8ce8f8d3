import { Controller } from '../../src/decode/controller.ts';
import { Measurements } from '../../src/decode/measurements.ts';
import { DecodePipeline } from '../../src/decode/pipeline.ts';
import type { PipelineEvent } from '../../src/decode/pipeline-types.ts';
import type { Draft } from '../../src/decode/ports.ts';
import type { DraftLimits, Mode } from '../../src/decode/types.ts';

/** A machine whose services take known times. All times are in microseconds. */
export interface Machine {
  /** Returns the time to verify n drafted tokens. */
  readonly verify: (drafted: number) => number;
  /** Returns the time to draft n tokens. */
  readonly draft: (tokens: number) => number;
  /** Factor by which both times grow while verify and draft run concurrently. */
  readonly contention: number;
  /**
   * Probability that a drafted token is correct if the tokens before it are. The drafter's confidence has the same
   * value.
   */
  readonly chance: number;
  /** Probabilities that a branch matches the outcome, after a rejected token and after a fully accepted block. */
  readonly hits: readonly [afterMiss: number, whole: number];
}

export interface SimulatedStep {
  readonly mode: Mode;
  readonly reason: string;
  readonly drafted: number;
  readonly accepted: number;
  readonly micros: number;
}

/** Returns pseudorandom numbers in [0, 1) (the linear congruential generator of Numerical Recipes). */
export function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

/** Runs the steps of one sequence on the machine, with the real pipeline and controller, in virtual time. */
export function* simulate(
  machineNow: () => Machine,
  limits: DraftLimits,
  measured = new Measurements(limits.length),
  next = random(1),
): Generator<SimulatedStep, void> {
  const policy = new Controller(limits, measured);
  const request = { maxTokens: Number.POSITIVE_INFINITY };
  const pipeline = new DecodePipeline({ request, model: { endOfText: NONE }, limits, policy, proposers: [] });
  const due: { readonly at: number; readonly event: PipelineEvent }[] = [];
  let now = 0;
  const after = (micros: number, event: (at: number) => PipelineEvent) => {
    const at = now + micros / 1000;
    due.push({ at, event: event(at) });
  };
  let machine = machineNow();
  // The outcome of the step under verification, which the simulation knows before the verdict.
  let [accepted, hit] = [0, false];
  pipeline.firstDraft();
  pipeline.receive({ kind: 'redraft', step: undefined, draft: draftOf(machine, 0, RIGHT, limits.length, 0), at: now });
  machine = machineNow();
  try {
    for (;;) {
      for (const command of pipeline.next(now, true)) {
        if (command.kind === 'verify') {
          const { step, block, overlapped } = command;
          const drafted = block.length;
          const micros = machine.verify(drafted) * (overlapped ? machine.contention : 1);
          accepted = runLength(drafted, machine.chance, next);
          hit = next() < machine.hits[accepted < drafted ? 0 : 1];
          const time = { micros, queueMicros: 0, runMicros: micros, batchSize: 1, drafted };
          const verdict = { accepted, nextToken: RIGHT, logProbabilities: [], tops: [], time };
          after(micros, (at) => ({ kind: 'verdict', step, verdict, at }));
          if (overlapped) after(0, () => ({ kind: 'verifySent', step }));
        } else if (command.kind === 'draft') {
          const { step, budget } = command;
          const micros = machine.draft(budget) * machine.contention;
          const draft = draftOf(machine, accepted, hit ? RIGHT : WRONG, 1 + limits.length, micros);
          after(micros, (at) => ({ kind: 'draft', step, draft, at }));
        } else if (command.kind === 'redraft') {
          const { step, budget } = command;
          const micros = machine.draft(budget);
          after(micros, (at) => ({ kind: 'redraft', step, draft: draftOf(machine, 0, RIGHT, budget, micros), at }));
        }
      }
      const finished = pipeline.takeFinished();
      if (finished) {
        const { mode, reason, drafted, stepMicros } = finished.stats;
        yield { mode, reason, drafted, accepted: finished.stats.accepted, micros: stepMicros };
        machine = machineNow();
      } else {
        due.sort((one, other) => one.at - other.at);
        const { at, event } = due.shift() as (typeof due)[number];
        now = at;
        pipeline.receive(event);
      }
    }
  } finally {
    policy.close();
  }
}

const [NONE, RIGHT, WRONG] = [-1, 0, 1];

/** Returns a draft with one branch, which matches the outcome that the step will have. */
function draftOf(machine: Machine, accepted: number, first: number, length: number, micros: number): Draft {
  const tokens = Array.from({ length }, (_, i) => (i === 0 ? first : RIGHT));
  const confidences = tokens.map(() => machine.chance);
  const branches = [{ $typeName: 'ptp.v1.Branch' as const, accepted, tokens, confidences }];
  return { branches, micros, queueMicros: 0, runMicros: micros, batchSize: 1 };
}

/** Returns the number of trials, at most n, that succeed before the first failure. */
function runLength(n: number, chance: number, next: () => number): number {
  let k = 0;
  while (k < n && next() < chance) k++;
  return k;
}

/**
 * Returns a noisy version of the machine, as if others used it too: times vary and drift, one call in twenty takes more
 * than twice as long, and texts differ.
 */
export function noisy(machine: Machine, next: () => number): () => Machine {
  let [steps, load, chance] = [0, 1, machine.chance];
  return () => {
    if (steps % 20 === 0) load = 0.85 + 0.4 * next();
    if (steps % 50 === 0) chance = Math.min(0.95, Math.max(0.02, machine.chance + 0.4 * (next() - 0.5)));
    steps++;
    const slower = () => load * (0.85 + 0.3 * next() + (next() < 0.05 ? 1.5 : 0));
    return {
      ...machine,
      chance,
      verify: (n) => machine.verify(n) * slower(),
      draft: (n) => machine.draft(n) * slower(),
    };
  };
}

/** Runs the next `count` steps. */
export function take(steps: Generator<SimulatedStep, void>, count: number): SimulatedStep[] {
  return Array.from({ length: count }, () => steps.next().value as SimulatedStep);
}

/** Returns the tokens per millisecond over some steps. */
export function speed(steps: readonly SimulatedStep[]): number {
  const tokens = steps.reduce((sum, step) => sum + step.accepted + 1, 0);
  return (1000 * tokens) / steps.reduce((sum, step) => sum + step.micros, 0);
}

const good = { chance: 0.75, hits: [0.5, 0.8] } as const;

/** Two GPUs: verifying more tokens costs nothing, and drafting has its own device. */
export const twoDevices: Machine = { verify: () => 25_000, draft: (n) => 5000 + 50 * n, contention: 1, ...good };
/** Two cores, on which verifying one more token costs a seventh of a step. */
export const twoCores: Machine = {
  verify: (n) => 7000 + 1000 * n,
  draft: (n) => 4000 + 100 * n,
  contention: 1.1,
  ...good,
};
/** One core for both services, on which concurrent runs take turns. */
export const oneCore: Machine = { ...twoCores, contention: 2.2 };
/** A drafter that is hardly ever right. */
export const poorDrafts: Machine = { ...twoCores, contention: 1.4, chance: 0.1, hits: [0.1, 0.2] };
/** A target that is as cheap as its drafter. */
export const smallTarget: Machine = {
  verify: (n) => 1500 + 300 * n,
  draft: (n) => 4000 + 100 * n,
  contention: 1.3,
  ...good,
};

import { type Block, Controller, cut, type DraftLimits, EMPTY, Measurements } from '../../src/decode/controller.ts';
import type { Mode } from '../../src/decode/mode-selector.ts';

/** A machine whose services take times that are known, microseconds. */
export interface Machine {
  /** A verify of n drafted tokens, alone; `beside` times that while a draft runs, and the draft too. */
  readonly verify: (drafted: number) => number;
  /** A draft call of n tokens. */
  readonly draft: (tokens: number) => number;
  readonly beside: number;
  /** Chance that a drafted token is right, its predecessors being so; the drafter's confidence in it. */
  readonly chance: number;
  /** Chance that a branch is of use after a wrong token, and after a block that was right. */
  readonly hits: readonly [afterMiss: number, whole: number];
}

export interface SimulatedStep {
  readonly mode: Mode;
  readonly reason: string;
  readonly drafted: number;
  readonly accepted: number;
  readonly micros: number;
}

/** A sequence of numbers in [0, 1) that looks random (Numerical Recipes' linear congruential generator). */
export function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

/** One sequence's steps on the machine, as generate.ts makes them. */
export function* simulate(
  machineNow: () => Machine,
  limits: DraftLimits,
  measured = new Measurements(limits.length),
  next = random(1),
): Generator<SimulatedStep, void> {
  const controller = new Controller(limits, measured);
  const drafted = (machine: Machine): Block => {
    const tokens = Array.from({ length: limits.length }, (_, i) => i);
    return { source: 'drafter', tokens, confidences: tokens.map(() => machine.chance) };
  };
  let given: Block | undefined = drafted(machineNow());
  try {
    for (;;) {
      const machine = machineNow();
      const { mode, reason } = controller.choose(true);
      const wanted = given ? 0 : controller.worthDrafting(mode, limits.length, EMPTY);
      const redraftMicros = wanted > 0 ? machine.draft(wanted) : 0;
      const block = controller.worthVerifying(given ?? cut(drafted(machine), 0, wanted), mode);
      const beside = mode === 'overlap';
      const budget = beside ? controller.budget(block.tokens.length) : 0;
      const slower = beside ? machine.beside : 1;
      const verifyMicros = machine.verify(block.tokens.length) * slower;
      const draftMicros = beside ? machine.draft(budget) * slower : 0;
      const stepMicros = redraftMicros + Math.max(verifyMicros, draftMicros);
      const accepted = runLength(block.tokens.length, machine.chance, next);
      const run = { runMicros: verifyMicros, batchSize: 1, drafted: block.tokens.length };
      const verify = { micros: verifyMicros, queueMicros: 0, ...run };
      const times = { stepMicros, verify, draftMicros, redraftMicros };
      controller.observe({ mode, block, accepted, budget, wanted, ...times });
      yield { mode, reason, drafted: block.tokens.length, accepted, micros: stepMicros };
      const hit = next() < machine.hits[accepted < block.tokens.length ? 0 : 1];
      given = beside && hit ? drafted(machine) : undefined;
    }
  } finally {
    controller.close();
  }
}

/** How many of n trials succeed before the first that doesn't. */
function runLength(n: number, chance: number, next: () => number): number {
  let k = 0;
  while (k < n && next() < chance) k++;
  return k;
}

/** The machine as one that is shared: times swing from call to call and drift, one call in twenty takes more than twice as long; texts differ. */
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

/** The next `count` steps. */
export function take(steps: Generator<SimulatedStep, void>, count: number): SimulatedStep[] {
  return Array.from({ length: count }, () => steps.next().value as SimulatedStep);
}

/** Tokens per millisecond over steps. */
export function speed(steps: readonly SimulatedStep[]): number {
  const tokens = steps.reduce((sum, step) => sum + step.accepted + 1, 0);
  return (1000 * tokens) / steps.reduce((sum, step) => sum + step.micros, 0);
}

const good = { chance: 0.75, hits: [0.5, 0.8] } as const;

/** As on a GPU: verifying more tokens costs nothing, drafting has a device of its own. */
export const twoDevices: Machine = { verify: () => 25_000, draft: (n) => 5000 + 50 * n, beside: 1, ...good };
/** Two cores: verifying a token more costs a seventh of a step. */
export const twoCores: Machine = {
  verify: (n) => 7000 + 1000 * n,
  draft: (n) => 4000 + 100 * n,
  beside: 1.1,
  ...good,
};
/** One core for both: whatever runs beside takes turns. */
export const oneCore: Machine = { ...twoCores, beside: 2.2 };
/** Drafts that hardly ever come true. */
export const poorDrafts: Machine = { ...twoCores, beside: 1.4, chance: 0.1, hits: [0.1, 0.2] };
/** Verifying is as cheap as drafting. */
export const smallTarget: Machine = {
  verify: (n) => 1500 + 300 * n,
  draft: (n) => 4000 + 100 * n,
  beside: 1.3,
  ...good,
};

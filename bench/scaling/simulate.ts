import { Controller } from '../../gateway/src/decode/controller.ts';
import { Measurements } from '../../gateway/src/decode/measurements.ts';
import { type DraftLimits, MODES, type StepStats } from '../../gateway/src/decode/types.ts';
import { Random } from '../random.ts';
import { sum } from '../statistics.ts';
import { Clock } from './clock.ts';
import { DraftModel, type DraftQuality, yieldCurves } from './draft-model.ts';
import { fixedPolicy, type Policy } from './fixed-policy.ts';
import { Replica, type ReplicaSettings, type Work } from './replica.ts';
import { type Network, Sequence } from './sequence.ts';

/** Services, clients and drafts to simulate. All times are in microseconds. */
export interface Scenario extends Network {
  /** Number of concurrent clients. Each starts a new sequence as soon as its previous one ends. */
  readonly sequences: number;
  /** Minimum and maximum number of prompt tokens. Prefill takes no time in the simulation. */
  readonly prompt: readonly [number, number];
  /** Minimum and maximum number of tokens to generate. */
  readonly output: readonly [number, number];
  readonly verifiers: number;
  readonly drafters: number;
  readonly verifier: ReplicaSettings;
  readonly drafter: ReplicaSettings;
  readonly limits: DraftLimits;
  /** True to use the real controller. False to always draft full blocks, which is impossible in mode `auto`. */
  readonly controller: boolean;
  readonly quality: DraftQuality;
  readonly seed: number;
  /** Duration of the warm-up before the measurement. */
  readonly settle: number;
  /** Duration of the measurement. */
  readonly counted: number;
}

/** Period in microseconds over which the clients' start times are spread, so that they do not run in step. */
const START = 50_000;

/** Simulates a scenario. @throws Error for mode `auto` without the controller */
export function simulate(scenario: Scenario) {
  const { sequences, settle, counted, seed, limits } = scenario;
  const clock = new Clock();
  const random = new Random(seed);
  const replicas = (number: number, settings: ReplicaSettings) =>
    Array.from({ length: number }, () => new Replica(clock, settings, random));
  const verifiers = replicas(scenario.verifiers, scenario.verifier);
  const drafters = replicas(scenario.drafters, scenario.drafter);
  const newPolicy = policiesOf(scenario);
  const curves = yieldCurves(scenario.quality, limits.length);
  const steps: StepStats[] = [];
  for (let i = 0; i < sequences; i++) {
    const own = new Random(seed * 1_000_003 + i + 1);
    const between = ([low, high]: readonly [number, number]) => Math.floor(own.between(low, high + 1));
    const parts = {
      ahead: limits.ahead ?? 0,
      network: scenario,
      drafts: new DraftModel(scenario.quality, own, curves),
      clock,
      verifier: verifiers[i % verifiers.length] as Replica,
      drafter: limits.mode === 'plain' ? undefined : drafters[i % drafters.length],
      onStep: (step: StepStats) => steps.push(step),
    };
    const startSequence = (isFirst: boolean) => {
      const [prompt, output] = [between(scenario.prompt), between(scenario.output)];
      // Each client's first sequence starts partly done, by a random share, so that sequences end at different times.
      const done = isFirst ? Math.floor(own.next() * output) : 0;
      const policy = newPolicy();
      const onEnd = () => {
        policy.close();
        startSequence(false);
      };
      new Sequence({ ...parts, prompt: prompt + done, maxTokens: output - done, policy }, onEnd).start();
    };
    clock.at(START * random.next(), () => startSequence(true));
  }
  clock.runUntil(settle);
  steps.length = 0;
  for (const each of [...verifiers, ...drafters]) each.reset();
  clock.runUntil(settle + counted);
  const tokens = sum(steps.map(({ accepted }) => accepted + 1));
  return {
    tokens,
    steps: steps.length,
    drafted: sum(steps.map(({ drafted }) => drafted)),
    tokensPerStep: tokens / steps.length,
    /** Share of the steps in each mode, and share of the steps that were sent ahead and not dropped. */
    modes: Object.fromEntries(MODES.map((mode) => [mode, share(steps, (step) => step.mode === mode)])),
    ahead: share(steps, ({ aheadMicros }) => aheadMicros > 0),
    tokensPerSecond: (1e6 * tokens) / counted,
    /** Mean time over all sequences, each of which is always waiting for a token. */
    millisPerToken: (sequences * counted) / tokens / 1000,
    verifier: useOf(verifiers, counted),
    drafter: useOf(drafters, counted),
  };
}

const share = (steps: readonly StepStats[], isCounted: (step: StepStats) => boolean): number =>
  steps.filter(isCounted).length / steps.length;

/**
 * Returns the share of the time spent in runs, the mean number of sequences per run, and the number of tokens run
 * through the model.
 */
function useOf(replicas: readonly Replica[], counted: number) {
  const total = (what: keyof Work) => sum(replicas.map(({ work }) => work[what]));
  const runs = total('runs');
  return {
    busy: replicas.length > 0 ? total('busyMicros') / (replicas.length * counted) : 0,
    batch: runs > 0 ? total('jobs') / runs : 0,
    tokens: total('tokens'),
  };
}

/** Returns a function that makes the policy of a sequence. Controllers share the measurements of one gateway. */
function policiesOf({ controller, limits }: Scenario): () => Policy {
  const { mode, length, budget } = limits;
  if (controller) {
    const measured = new Measurements(length);
    return () => new Controller(limits, measured);
  }
  if (mode === 'auto') throw new Error('mode auto requires the controller');
  return () => fixedPolicy(mode, length, budget);
}

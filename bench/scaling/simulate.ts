import { Controller } from '../../gateway/src/decode/controller.ts';
import { Measurements } from '../../gateway/src/decode/measurements.ts';
import type { DraftLimits, GenerationStep, Mode, StepStats } from '../../gateway/src/decode/types.ts';
import { sum } from '../statistics.ts';
import { Clock, randomNumbers } from './clock.ts';
import { DraftModel, type DraftQuality, yieldCurves } from './draft-model.ts';
import { fixedPolicy, type Policy } from './fixed-policy.ts';
import { Replica, type ReplicaSettings, type Work } from './replica.ts';
import { type Network, Sequence, type SequenceParts } from './sequence.ts';

/** Times in microseconds. */
export interface Scenario extends Network {
  /** Number of concurrent clients. Each starts a new sequence as soon as its previous one ends. */
  readonly sequences: number;
  /** Minimum and maximum tokens of a prompt; prefill takes no time here. */
  readonly prompt: readonly [number, number];
  /** Minimum and maximum tokens to generate. */
  readonly output: readonly [number, number];
  readonly verifiers: number;
  readonly drafters: number;
  readonly verifier: ReplicaSettings;
  readonly drafter: ReplicaSettings;
  readonly limits: DraftLimits;
  /** True to use the real controller; false to always draft full blocks, which is impossible in mode `auto`. */
  readonly controller: boolean;
  readonly quality: DraftQuality;
  readonly seed: number;
  /** Warm-up time before the measurement. */
  readonly settle: number;
  /** Measured time. */
  readonly counted: number;
}

export interface Outcome {
  readonly tokens: number;
  readonly steps: number;
  readonly drafted: number;
  readonly accepted: number;
  readonly tokensPerSecond: number;
  /** Mean over all sequences; each of them is always waiting for a token. */
  readonly millisPerToken: number;
  readonly tokensPerStep: number;
  /** Share of steps in each mode. */
  readonly modes: Readonly<Record<Mode, number>>;
  /** Share of steps with a redraft. */
  readonly redrafts: number;
  /** Share of steps that were sent ahead and not dropped. */
  readonly ahead: number;
  /** Number of drafts that timed out. */
  readonly late: number;
  readonly verifier: Use;
  readonly drafter: Use;
}

/** Load of a service. */
export interface Use {
  /** Share of the time spent in runs. */
  readonly busy: number;
  /** Mean number of sequences per run. */
  readonly batch: number;
  /** Number of tokens run through the model. */
  readonly tokens: number;
}

/** Microseconds over which the starts of the clients are spread, so that they are not synchronized. */
const START = 50_000;

/** @throws Error for mode `auto` without the controller */
export function simulate(scenario: Scenario): Outcome {
  const { sequences, settle, counted, seed } = scenario;
  const clock = new Clock();
  const count = new Count();
  const random = randomNumbers(seed);
  const replicas = (number: number, settings: ReplicaSettings) =>
    Array.from({ length: number }, () => new Replica(clock, settings, random));
  const verifiers = replicas(scenario.verifiers, scenario.verifier);
  const drafters = replicas(scenario.drafters, scenario.drafter);
  const newPolicy = policiesOf(scenario);
  const curves = yieldCurves(scenario.quality, scenario.limits.length);
  for (let i = 0; i < sequences; i++) {
    const own = randomNumbers(seed * 1_000_003 + i + 1);
    const client = {
      random: own,
      newPolicy,
      drafts: new DraftModel(scenario.quality, own, curves),
      clock,
      verifier: verifiers[i % verifiers.length] as Replica,
      drafter: scenario.limits.mode === 'plain' ? undefined : drafters[i % drafters.length],
      count,
    };
    clock.at(START * random(), () => startSequence(scenario, client, true));
  }
  clock.runUntil(settle);
  for (const each of [count, ...verifiers, ...drafters]) each.reset();
  clock.runUntil(settle + counted);
  return {
    ...count.totals(),
    tokensPerSecond: (1e6 * count.tokens) / counted,
    millisPerToken: (sequences * counted) / count.tokens / 1000,
    verifier: useOf(verifiers, counted),
    drafter: useOf(drafters, counted),
  };
}

interface Client extends Pick<SequenceParts, 'drafts' | 'clock' | 'verifier' | 'drafter'> {
  readonly random: () => number;
  readonly newPolicy: () => Policy;
  readonly count: Count;
}

/** Starts a client's sequence; when it ends, starts the client's next one. */
function startSequence(scenario: Scenario, client: Client, isFirst: boolean): void {
  const { random, newPolicy, count, ...parts } = client;
  const between = ([low, high]: readonly [number, number]) => low + Math.floor(random() * (high - low + 1));
  const [prompt, output] = [between(scenario.prompt), between(scenario.output)];
  // each client's first sequence starts partly done, by a random share, so that sequences end at different times
  const done = isFirst ? Math.floor(random() * output) : 0;
  const policy = newPolicy();
  const own = {
    prompt: prompt + done,
    maxTokens: output - done,
    ahead: scenario.limits.ahead ?? 0,
    network: scenario,
    policy,
    onStep: ({ stats }: GenerationStep) => count.add(stats),
    onLate: () => count.addLate(),
  };
  const onEnd = () => {
    policy.close();
    startSequence(scenario, client, false);
  };
  new Sequence({ ...parts, ...own }, onEnd).start();
}

class Count {
  tokens = 0;
  #steps = 0;
  #drafted = 0;
  #accepted = 0;
  #redrafts = 0;
  #ahead = 0;
  #late = 0;
  #modes = noModes();

  reset(): void {
    this.tokens = this.#steps = this.#drafted = this.#accepted = this.#redrafts = this.#ahead = this.#late = 0;
    this.#modes = noModes();
  }

  add({ mode, drafted, accepted, redraftMicros, aheadMicros }: StepStats): void {
    this.tokens += accepted + 1;
    this.#steps++;
    this.#drafted += drafted;
    this.#accepted += accepted;
    this.#redrafts += Number(redraftMicros > 0);
    this.#ahead += Number(aheadMicros > 0);
    this.#modes[mode]++;
  }

  addLate(): void {
    this.#late++;
  }

  totals() {
    const share = (of: number) => (this.#steps > 0 ? of / this.#steps : 0);
    const { overlap, sequential, plain } = this.#modes;
    return {
      tokens: this.tokens,
      steps: this.#steps,
      drafted: this.#drafted,
      accepted: this.#accepted,
      late: this.#late,
      tokensPerStep: share(this.tokens),
      modes: { overlap: share(overlap), sequential: share(sequential), plain: share(plain) },
      redrafts: share(this.#redrafts),
      ahead: share(this.#ahead),
    };
  }
}

const noModes = (): Record<Mode, number> => ({ overlap: 0, sequential: 0, plain: 0 });

function useOf(replicas: readonly Replica[], counted: number): Use {
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

import { Controller, Measurements } from '../../gateway/src/decode/controller.ts';
import { MODES, type Mode } from '../../gateway/src/decode/mode-selector.ts';
import { Client, type Load } from './client.ts';
import { Clock, randomNumbers } from './clock.ts';
import { Replica, type ReplicaSettings, type Work } from './replica.ts';
import { type DraftQuality, draftModel, fixedPolicy, type Policy, type Step } from './sequence.ts';

/** What is simulated. Times in microseconds. */
export interface Scenario extends Load {
  /** Clients, each of which has one sequence at a time and starts another when that has ended. */
  readonly sequences: number;
  readonly verifiers: number;
  readonly drafters: number;
  readonly verifier: ReplicaSettings;
  readonly drafter: ReplicaSettings;
  /** Gateway processes, each with its own measurements; client i belongs to gateway i mod gateways. */
  readonly gateways: number;
  /** Whether the real controller decides, or drafts are always full (not with mode `auto`). */
  readonly controller: boolean;
  readonly quality: DraftQuality;
  readonly seed: number;
  /** Time before anything is counted, and time that is. */
  readonly settle: number;
  readonly counted: number;
}

/** What was counted. */
export interface Outcome {
  readonly tokens: number;
  readonly steps: number;
  readonly drafted: number;
  readonly accepted: number;
  readonly tokensPerSecond: number;
  /** Mean over the sequences: each of them is always waiting for its next token. */
  readonly millisPerToken: number;
  readonly tokensPerStep: number;
  /** Share of the steps in each mode, and of those that drafted anew. */
  readonly modes: Readonly<Record<Mode, number>>;
  readonly redrafts: number;
  /** Share of the steps that were sent ahead, and came true. */
  readonly ahead: number;
  /** Drafts that came too late. */
  readonly late: number;
  readonly verifier: Use;
  readonly drafter: Use;
}

/** How a service was used: share of the time in runs, sequences in a run, tokens through the model. */
export interface Use {
  readonly busy: number;
  readonly batch: number;
  readonly tokens: number;
}

/** Clients start spread over this time, so that they aren't in step with each other. */
const START = 50_000;

/** @throws Error for mode `auto` without the controller */
export function simulate(scenario: Scenario): Outcome {
  const { sequences, settle, counted, seed } = scenario;
  const clock = new Clock();
  const random = randomNumbers(seed);
  const replicas = (count: number, settings: ReplicaSettings) =>
    Array.from({ length: count }, () => new Replica(clock, settings, random));
  const verifiers = replicas(scenario.verifiers, scenario.verifier);
  const drafters = replicas(scenario.drafters, scenario.drafter);
  const policies = Array.from({ length: scenario.gateways }, () => policiesOf(scenario));
  const drafts = draftModel(scenario.quality, scenario.limits.length);
  let count = new Count();
  for (let i = 0; i < sequences; i++) {
    const client = new Client({
      load: scenario,
      clock,
      drafts,
      policy: policies[i % policies.length] as () => Policy,
      random: randomNumbers(seed * 1_000_003 + i + 1),
      verifier: verifiers[i % verifiers.length] as Replica,
      drafter: drafters[i % drafters.length],
      onStep: (step) => count.add(step),
      onLate: () => count.late++,
    });
    clock.at(START * random(), () => client.begin(true));
  }
  clock.runUntil(settle);
  count = new Count();
  for (const replica of [...verifiers, ...drafters]) replica.reset();
  clock.runUntil(settle + counted);
  const { tokens, steps, drafted, accepted, late } = count;
  const share = (of: number) => (steps > 0 ? of / steps : 0);
  const { overlap, sequential, plain } = count.modes;
  return {
    tokens,
    steps,
    drafted,
    accepted,
    late,
    tokensPerSecond: (1e6 * tokens) / counted,
    millisPerToken: (sequences * counted) / tokens / 1000,
    tokensPerStep: share(tokens),
    modes: { overlap: share(overlap), sequential: share(sequential), plain: share(plain) },
    redrafts: share(count.redrafts),
    ahead: share(count.ahead),
    verifier: useOf(verifiers, counted),
    drafter: useOf(drafters, counted),
  };
}

/** What becomes of the steps. */
class Count {
  tokens = 0;
  steps = 0;
  drafted = 0;
  accepted = 0;
  redrafts = 0;
  ahead = 0;
  late = 0;
  readonly modes = Object.fromEntries(MODES.map((mode) => [mode, 0])) as Record<Mode, number>;

  add({ mode, drafted, accepted, redraft, ahead, tokens }: Step): void {
    this.tokens += tokens;
    this.steps++;
    this.drafted += drafted;
    this.accepted += accepted;
    this.redrafts += Number(redraft);
    this.ahead += Number(ahead);
    this.modes[mode]++;
  }
}

function useOf(replicas: readonly Replica[], counted: number): Use {
  const sum = (what: keyof Work) => replicas.reduce((total, { work }) => total + work[what], 0);
  const runs = sum('runs');
  return {
    busy: replicas.length > 0 ? sum('busyMicros') / (replicas.length * counted) : 0,
    batch: runs > 0 ? sum('jobs') / runs : 0,
    tokens: sum('tokens'),
  };
}

/** A gateway's policies, one for each sequence. */
function policiesOf({ controller, limits }: Scenario): () => Policy {
  const { mode, length, budget } = limits;
  if (controller) {
    const measured = new Measurements(length);
    return () => new Controller(limits, measured);
  }
  if (mode === 'auto') throw new Error('mode auto needs the controller');
  return () => fixedPolicy(mode, length, budget);
}

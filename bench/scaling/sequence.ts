import { planBranches, type YieldCurves } from '../../drafter/src/plan.ts';
import { type Block, type Controller, cut, EMPTY } from '../../gateway/src/loop/controller.ts';
import type { VerifyTime } from '../../gateway/src/loop/costs.ts';
import type { Mode } from '../../gateway/src/loop/pace.ts';
import type { Clock } from './clock.ts';
import type { Run } from './replica.ts';

/** What drafts are worth. */
export interface DraftQuality {
  /** Chance that a drafted token is right, those before it in its block being so; the drafter's confidence in it is the same. */
  readonly chance: number;
  /** Chance that the first token of a branch is what the target says: where a token was wrong, and after a whole block. */
  readonly hits: readonly [afterMiss: number, whole: number];
  /**
   * Of a drafter that checks blocks by itself, and makes one branch: chance that its copy of the target says what the target says. It has
   * to be right along the block up to the branch, whose chance `hits` then doesn't tell.
   */
  readonly checks?: number;
}

/** The same, worked out for blocks and branches of every length. */
export interface DraftModel extends DraftQuality {
  /** Block of n tokens at n. */
  readonly blocks: readonly Block[];
  /** Expected right tokens of branches (`engine.yieldCurve`). */
  readonly curves: YieldCurves;
}

/** @param longest block, in tokens */
export function draftModel(quality: DraftQuality, longest: number): DraftModel {
  const { chance, hits } = quality;
  const lengths = Array.from({ length: longest + 2 }, (_, n) => n);
  // a branch's first token is right with the chance of a hit, the others like any token
  const curve = (hit: number) => lengths.map((n) => hit * sum(lengths.slice(0, n).map((k) => chance ** k)));
  return {
    ...quality,
    blocks: lengths.map((n) => {
      const confidences = new Array<number>(n).fill(chance);
      return { source: 'drafter', tokens: confidences.map((_, i) => i), confidences };
    }),
    curves: { afterMiss: curve(hits[0]), whole: curve(hits[1]) },
  };
}

/** A message to a service. */
export interface Call {
  readonly to: 'verifier' | 'drafter';
  readonly tokens: number;
  readonly context: number;
}

/** Microseconds until a call was answered, and the run that served it. */
export interface Answer {
  readonly micros: number;
  readonly run: Run;
}

/** One for each of the calls; undefined where it didn't come in time. */
export type Answers = readonly (Answer | undefined)[];

/** What a step did. */
export interface Step {
  readonly mode: Mode;
  readonly drafted: number;
  readonly accepted: number;
  readonly redraft: boolean;
  /** Committed. */
  readonly tokens: number;
}

/** Who decides how a step drafts. */
export type Policy = Pick<
  Controller,
  'choose' | 'room' | 'worthVerifying' | 'worthDrafting' | 'chances' | 'budget' | 'observe' | 'close'
>;

export interface SequenceParts {
  /** Tokens before the first one generated, and to be generated. */
  readonly prompt: number;
  readonly maxTokens: number;
  readonly policy: Policy;
  /** Whether there is a drafter at all, and whether it can be asked now. */
  readonly drafting: boolean;
  readonly available: () => boolean;
  readonly drafts: DraftModel;
  readonly clock: Clock;
  readonly random: () => number;
  readonly onStep: (step: Step) => void;
}

/** One sequence's calls, as gateway/src/loop/run.ts makes them, but for those that are sent ahead: yields those that are in flight together. */
export function* sequence(parts: SequenceParts): Generator<readonly Call[], void, Answers> {
  const { policy, drafts, clock, random, maxTokens } = parts;
  const block = (length: number): Block => drafts.blocks[length] as Block;
  let context = parts.prompt;
  let generated = 0;
  /** Committed tokens that the drafter hasn't read; it leaves the prompt's last one for the first step (drafter/src/draft.ts). */
  let unread = 1;
  const room = (committed: number) => policy.room(maxTokens - generated - committed);
  const draftCall = (underVerification: number, drafted: number): Call => {
    const tokens = Math.max(1, unread + underVerification) + drafted;
    unread = 0;
    return { to: 'drafter', tokens, context };
  };

  try {
    let given: Block | undefined;
    if (parts.drafting && room(0) > 0) {
      const [answer] = yield [draftCall(0, room(0))];
      given = block(answer ? room(0) : 0);
    }
    while (generated < maxTokens) {
      const started = clock.now;
      const { mode } = policy.choose(parts.drafting && parts.available());
      const wanted = given ? 0 : policy.worthDrafting(mode, room(0), EMPTY);
      let offered = given ?? EMPTY;
      let redraftMicros = 0;
      if (wanted > 0) {
        const [answer] = yield [draftCall(0, wanted)];
        if (answer) [offered, redraftMicros] = [block(wanted), answer.micros];
      }
      const verified = policy.worthVerifying(offered, mode);
      const drafted = verified.tokens.length;
      const beside = mode === 'overlap' && room(drafted) > 0 && parts.available();
      const budget = beside ? policy.budget(drafted) : 0;
      // a branch starts with the token that the verifier says anyway
      const longest = policy.room(Number.POSITIVE_INFINITY) + 1;
      const one = drafts.checks === undefined ? undefined : Math.min(budget, longest);
      const branches =
        beside && one === undefined ? planBranches(policy.chances(verified), drafts.curves, budget, longest) : [];
      const verify: Call = { to: 'verifier', tokens: drafted + 1, context };
      const [answer, draft] = yield beside ? [verify, draftCall(drafted, one ?? sum(branches))] : [verify];
      const draftMicros = draft?.micros ?? 0;

      const accepted = runLength(drafted, drafts.chance, random);
      const tokens = accepted + 1;
      generated += tokens;
      context += tokens;
      unread += beside ? 1 : tokens;
      const stepMicros = clock.now - started;
      const times = { stepMicros, verify: verifyTime(answer as Answer), draftMicros, redraftMicros };
      policy.observe({ mode, block: verified, accepted, budget, wanted, ...times });
      parts.onStep({ mode, drafted, accepted, redraft: wanted > 0, tokens });
      const fits =
        drafts.checks === undefined ? drafts.hits[accepted < drafted ? 0 : 1] : drafts.checks ** (accepted + 1);
      const branch = random() < fits && draftMicros > 0 ? (one ?? branches[accepted] ?? 0) : 0;
      given = branch >= 2 ? block(Math.min(branch - 1, room(0))) : undefined;
    }
  } finally {
    policy.close();
  }
}

/** As the verifier's timings tell it the gateway (gateway/src/services/verify-stream.ts). */
function verifyTime({ micros, run }: Answer): VerifyTime {
  return { micros, ...run, drafted: run.batchTokens / run.batchSize - 1 };
}

/** Drafts always in the same way and in full: what the controller is compared with. */
export function fixedPolicy(mode: Mode, length: number, budget: number): Policy {
  return {
    choose: (drafter) => ({ mode: drafter ? mode : 'plain', reason: 'setting' }),
    room: (wanted) => Math.max(0, Math.min(length, wanted - 1)),
    worthVerifying: (block) => cut(block, 0, length),
    worthDrafting: (now, room) => (now === 'plain' ? 0 : room),
    chances: (block) => [...block.confidences],
    budget: () => budget,
    observe: () => {},
    close: () => {},
  };
}

/** How many of n trials succeed before the first that doesn't. */
function runLength(n: number, chance: number, random: () => number): number {
  let k = 0;
  while (k < n && random() < chance) k++;
  return k;
}

function sum(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0);
}

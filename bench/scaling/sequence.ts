import { planBranches, type YieldCurves } from '../../drafter/src/branch-plan.ts';
import { type Block, cut, EMPTY } from '../../gateway/src/decode/block.ts';
import type { Controller } from '../../gateway/src/decode/controller.ts';
import type { VerifyTime } from '../../gateway/src/decode/cost-model.ts';
import type { Mode } from '../../gateway/src/decode/mode-selector.ts';
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
  /** Of a step sent ahead: the verify call before it, which the verifier answers first, and whether it ends as this one counts on. */
  readonly after?: { readonly call: Sent; readonly asExpected: boolean };
}

/** Microseconds until a call was answered, and the run that served it. */
export interface Answer {
  readonly micros: number;
  readonly run: Run;
}

/** A call that has been sent. */
export interface Sent {
  /** When its answer came, or was given up; undefined before that. */
  readonly at?: number | undefined;
  /** Undefined where it didn't come in time. */
  readonly answer?: Answer | undefined;
}

/** What a sequence waits for: the answers of all of these calls, or of any. */
export interface Wait {
  readonly until: 'all' | 'any';
  readonly of: readonly Sent[];
}

/** What a step did. */
export interface Step {
  readonly mode: Mode;
  readonly drafted: number;
  readonly accepted: number;
  readonly redraft: boolean;
  /** Sent before the outcome of the step before it was known. */
  readonly ahead: boolean;
  /** Committed. */
  readonly tokens: number;
}

/** Who decides how a step drafts. */
export type Policy = Pick<
  Controller,
  | 'choose'
  | 'room'
  | 'worthVerifying'
  | 'worthDrafting'
  | 'worthSendingAhead'
  | 'sentAhead'
  | 'chances'
  | 'budget'
  | 'observe'
  | 'close'
>;

export interface SequenceParts {
  /** Tokens before the first one generated, and to be generated. */
  readonly prompt: number;
  readonly maxTokens: number;
  readonly policy: Policy;
  /** Steps sent ahead at most; only a drafter that checks blocks knows for what. */
  readonly ahead: number;
  /** Whether there is a drafter at all, and whether it can be asked now. */
  readonly drafting: boolean;
  readonly available: () => boolean;
  readonly drafts: DraftModel;
  readonly clock: Clock;
  readonly random: () => number;
  readonly send: (call: Call) => Sent;
  readonly onStep: (step: Step) => void;
}

/** How a step is to draft, and with what. */
interface Plan {
  readonly mode: Mode;
  readonly began: number;
  readonly offered: Block;
  /** Of the draft before: tokens that were asked for, and its time. */
  readonly wanted: number;
  readonly redraftMicros: number;
}

/** A step that has been sent. What becomes of it is drawn already, though nobody is told before the verifier has answered. */
interface Flying extends Plan {
  readonly block: Block;
  readonly budget: number;
  readonly accepted: number;
  /** Whether the branch for that outcome begins as the target does, and its tokens. */
  readonly fits: boolean;
  readonly branch: number;
  readonly verify: Sent;
  readonly draft: Sent | undefined;
  readonly ahead: boolean;
}

/** One sequence's steps, as gateway/src/decode/driver.ts makes them: sends their calls, and yields what it waits for. */
export class Sequence {
  readonly #parts: SequenceParts;
  /** Committed tokens. */
  #context: number;
  #generated = 0;
  /** Committed tokens that the drafter hasn't read; it leaves the prompt's last one for the first step (drafter/src/drafter.ts). */
  #unread = 1;
  /** Steps that have been sent, in order: each but the first for the outcome that the drafter expects of the one before it. */
  #flight: Flying[] = [];
  /** What the drafter gave for the next step; undefined to draft anew. */
  #given: Block | undefined;
  /** Chosen already for the next step that is sent. */
  #chosen: Mode | undefined;
  /** When the last step ended. */
  #ended = Number.NEGATIVE_INFINITY;

  constructor(parts: SequenceParts) {
    this.#parts = parts;
    this.#context = parts.prompt;
  }

  *run(): Generator<Wait, void, void> {
    const { policy, maxTokens, drafting } = this.#parts;
    try {
      if (drafting && this.#room(0) > 0) {
        const first = this.#askDrafter(0, this.#room(0));
        yield { until: 'all', of: [first] };
        this.#given = this.#block(first.answer ? this.#room(0) : 0);
      }
      while (this.#generated < maxTokens) yield* this.#step();
    } finally {
      policy.close();
    }
  }

  *#step(): Generator<Wait, void, void> {
    if (this.#flight.length === 0) this.#send(yield* this.#begin());
    const step = this.#flight[0] as Flying;
    while (step.verify.at === undefined) {
      const last = this.#flight.at(-1)?.draft;
      const mayFollow = last !== undefined && last.at === undefined;
      yield { until: 'any', of: mayFollow ? [step.verify, last] : [step.verify] };
      if (mayFollow && last.at !== undefined) this.#goAhead();
    }
    this.#commit(step);
    // there may have been too many in flight when the last one's draft came
    this.#goAhead();
    if (step.draft) yield { until: 'all', of: [step.draft] };
    this.#learn(step);
  }

  /** What a step after all that is committed begins with. */
  *#begin(): Generator<Wait, Plan, void> {
    const { policy, clock } = this.#parts;
    const began = clock.now;
    const mode = this.#choose();
    const room = this.#room(0);
    const wanted = this.#given ? 0 : policy.worthDrafting(mode, room, EMPTY);
    if (wanted === 0) return { mode, began, offered: this.#given ?? EMPTY, wanted, redraftMicros: 0 };
    const fresh = this.#askDrafter(0, wanted);
    yield { until: 'all', of: [fresh] };
    const { answer } = fresh;
    return { mode, began, offered: answer ? this.#block(wanted) : EMPTY, wanted, redraftMicros: answer?.micros ?? 0 };
  }

  #send(plan: Plan): void {
    const { policy, drafts, random, available, send } = this.#parts;
    const { mode, offered } = plan;
    const before = this.#flight.at(-1);
    const expected = this.#expected();
    const block = policy.worthVerifying(offered, mode);
    const drafted = block.tokens.length;
    const beside = mode === 'overlap' && this.#room(expected + drafted) > 0 && available();
    const budget = beside ? policy.budget(drafted) : 0;
    // a branch starts with the token that the verifier says anyway
    const longest = policy.room(Number.POSITIVE_INFINITY) + 1;
    const one = drafts.checks === undefined ? undefined : Math.min(budget, longest);
    const branches =
      beside && one === undefined ? planBranches(policy.chances(block), drafts.curves, budget, longest) : [];
    const verify = send({
      to: 'verifier',
      tokens: drafted + 1,
      context: this.#context + expected,
      ...(before && { after: { call: before.verify, asExpected: before.fits } }),
    });
    const draft = beside ? this.#askDrafter(drafted, one ?? sum(branches)) : undefined;
    const accepted = runLength(drafted, drafts.chance, random);
    this.#unread += beside ? 1 : accepted + 1;
    const chance =
      drafts.checks === undefined ? drafts.hits[accepted < drafted ? 0 : 1] : drafts.checks ** (accepted + 1);
    const fits = random() < chance;
    const branch = beside ? (one ?? branches[accepted] ?? 0) : 0;
    this.#flight.push({ ...plan, block, budget, accepted, fits, branch, verify, draft, ahead: before !== undefined });
  }

  /** Sends the next step for the outcome that a draft expects, while that of its own step is not known. */
  #goAhead(): void {
    const { policy, drafts, ahead, maxTokens, clock } = this.#parts;
    const last = this.#flight.at(-1);
    const expects = drafts.checks !== undefined && last?.draft?.answer !== undefined && last.branch >= 2;
    if (!last || !expects || this.#flight.length > ahead) return;
    if (this.#generated + this.#expected() >= maxTokens || !policy.worthSendingAhead()) return;
    const mode = this.#choose();
    if (mode !== 'overlap') {
      this.#chosen = mode;
      return;
    }
    const offered = this.#block(Math.min(last.branch - 1, this.#room(this.#expected())));
    this.#send({ mode, began: clock.now, offered, wanted: 0, redraftMicros: 0 });
  }

  /** Notes what the verifier said of the first step in flight; what was sent for another outcome is given up. */
  #commit(step: Flying): void {
    const { policy } = this.#parts;
    this.#flight.shift();
    this.#generated += step.accepted + 1;
    this.#context += step.accepted + 1;
    const [next] = this.#flight;
    if (!next) return;
    policy.sentAhead(step.fits);
    if (step.fits) return;
    this.#chosen ??= next.mode;
    this.#flight = [];
    this.#unread = 1;
  }

  #learn({ mode, block, accepted, budget, wanted, ...step }: Flying): void {
    const { policy, onStep } = this.#parts;
    const [verify, draft] = [step.verify.answer as Answer, step.draft?.answer];
    const answered = Math.max(step.verify.at as number, step.draft?.at ?? 0);
    const stepMicros = answered - Math.max(step.began, this.#ended);
    this.#ended = answered;
    const times = { stepMicros, draftMicros: draft?.micros ?? 0, redraftMicros: step.redraftMicros };
    policy.observe({ mode, block, accepted, budget, redraftLength: wanted, verify: verifyTime(verify), ...times });
    const drafted = block.tokens.length;
    onStep({ mode, drafted, accepted, redraft: wanted > 0, ahead: step.ahead, tokens: accepted + 1 });
    const found = step.fits && draft && step.branch >= 2;
    this.#given = found ? this.#block(Math.min(step.branch - 1, this.#room(0))) : undefined;
  }

  /** @param underVerification tokens of the block that is being verified, which it reads first */
  #askDrafter(underVerification: number, drafted: number): Sent {
    const tokens = Math.max(1, this.#unread + underVerification) + drafted;
    this.#unread = 0;
    return this.#parts.send({ to: 'drafter', tokens, context: this.#context + this.#expected() });
  }

  #choose(): Mode {
    const { policy, drafting, available } = this.#parts;
    const mode = this.#chosen ?? policy.choose(drafting && available()).mode;
    this.#chosen = undefined;
    return mode;
  }

  /** Tokens that the steps in flight commit: what the drafter expects, where it is right. */
  #expected(): number {
    return sum(this.#flight.map(({ accepted }) => accepted + 1));
  }

  #room(committed: number): number {
    return this.#parts.policy.room(this.#parts.maxTokens - this.#generated - committed);
  }

  #block(length: number): Block {
    return this.#parts.drafts.blocks[length] as Block;
  }
}

/** As the verifier's timings tell it the gateway (gateway/src/clients/verify-stream.ts). */
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
    worthSendingAhead: () => true,
    sentAhead: () => {},
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

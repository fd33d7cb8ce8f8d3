import type { Span } from '@opentelemetry/api';
import type { Branch } from '@ptp/protocol/gen/ptp/v1/drafter_pb';
import { attribute, endSpan } from '@ptp/service-kit/spans';
import { stepAttributes, stepSpan } from '../observe/spans.ts';
import { branchThatFits } from './branch.ts';
import { type Block, type Controller, cut, type DraftLimits, EMPTY, type StepDecision } from './controller.ts';
import { GrammarCursor } from './grammar-cursor.ts';
import {
  committedBy,
  type Draft,
  type DraftStream,
  type Expected,
  type Opened,
  type Proposal,
  type StepUnderWay,
  type Verdict,
  type VerifyStream,
} from './ports.ts';
import { type Proposer, proposersFor } from './proposers/proposers.ts';
import type { GenerationRequest, GenerationStep, ModelInfo, StepStats } from './types.ts';

/** What one request's steps are made with. */
export interface RunParts {
  readonly controller: Controller;
  readonly limits: DraftLimits;
  readonly verifier: VerifyStream;
  readonly drafter: DraftStream | undefined;
  readonly span: Span;
}

/** A step that has been sent. */
interface Step {
  /** What its calls are made for. */
  readonly of: StepUnderWay;
  /** A `performance.now()` value. */
  readonly began: number;
  readonly choice: StepDecision;
  readonly offered: Block;
  /** Under verification. */
  readonly block: Block;
  /** Of the draft before: tokens that were asked for, and its time. */
  readonly wanted: number;
  readonly redraftMicros: number;
  /** Undefined if the step was sent for an outcome that did not come, or its verifier is lost. */
  readonly verdict: Promise<Verdict | undefined>;
}

/** The same with the draft call beside it. */
interface StepInFlight extends Step {
  readonly budget: number;
  draft: Promise<Draft | undefined> | undefined;
  /** The outcome that the next step has been sent for. */
  expected?: Expected;
  /** When the last of its answers came, and the drafter's. */
  answered: number;
  drafted?: Draft | undefined;
}

/**
 * One request's steps. A step is a verify call with a draft call beside it, which prepares the next block for its likely outcomes. When the
 * draft is there first, and expects one outcome only, the next step is sent for that outcome: the verifier runs it if it comes, without
 * waiting for us, and the drafter goes on from there. So several steps may be in flight, each sent for the outcome of the one before it; when
 * one ends otherwise, those after it are dropped.
 */
export class Run {
  readonly #request: GenerationRequest;
  readonly #model: ModelInfo;
  readonly #controller: Controller;
  readonly #limits: DraftLimits;
  readonly #proposers: readonly Proposer[];
  readonly #verifier: VerifyStream;
  readonly #drafter: DraftStream | undefined;
  readonly #span: Span;
  readonly #path: GrammarCursor;
  /** Committed tokens, and steps that committed them. */
  #generated = 0;
  #steps = 0;
  /** When the last of them ended. */
  #ended = Number.NEGATIVE_INFINITY;
  /** Steps that have been sent, in order. */
  readonly #flight: StepInFlight[] = [];
  /** What is at hand for the next step from the drafter; undefined to draft anew (`redraft`). */
  #given: Block | undefined;
  /** Chosen already for the next step that is sent. */
  #chosen: StepDecision | undefined;

  constructor(request: GenerationRequest, model: ModelInfo, parts: RunParts) {
    this.#request = request;
    this.#model = model;
    this.#controller = parts.controller;
    this.#limits = parts.limits;
    this.#proposers = proposersFor(request, parts.limits, model);
    this.#verifier = parts.verifier;
    this.#drafter = parts.drafter;
    this.#span = parts.span;
    this.#path = new GrammarCursor(request.grammar);
  }

  /** Resolves when the prompt has been read; the first block is drafted in the meantime. */
  async opened(): Promise<Opened> {
    const opened = this.#verifier.opened();
    const drafted = Promise.resolve(this.#drafter?.opened(opened)).then(() =>
      this.#fresh(this.#room(0), { span: this.#span }),
    );
    const [{ block }, result] = await Promise.all([drafted, opened]);
    this.#given = block;
    return result;
  }

  /** What the next step commits, when the verifier has answered it and, where nothing follows yet, the drafter too. */
  async step(): Promise<GenerationStep> {
    const step = this.#flight[0] ?? (await this.#begin());
    try {
      const done = await this.#finish(step);
      endSpan(step.of.span, { attributes: stepAttributes(done.stats) });
      return done;
    } catch (error) {
      endSpan(step.of.span, { error });
      throw error;
    }
  }

  /** Nothing more is sent. */
  close(): void {
    this.#drop();
  }

  /** A block for the next positions, drafted with nothing under verification; empty when there is no drafter. */
  async #fresh(wanted: number, of: StepUnderWay): Promise<{ block: Block; micros: number }> {
    const plan = { budget: wanted, maxBranchLength: wanted };
    const draft = wanted > 0 ? await this.#drafter?.step({ ...EMPTY, assumed: 0 }, plan, of) : undefined;
    const [branch] = draft?.branches ?? [];
    return { block: branch ? this.#path.allowed(drafted(branch)) : EMPTY, micros: draft?.micros ?? 0 };
  }

  /** Longest block that may follow when so many more tokens have been committed. */
  #room(committed: number): number {
    return this.#controller.room(this.#request.maxTokens - this.#generated - committed);
  }

  #choose(): StepDecision {
    const choice = this.#chosen ?? this.#controller.choose(this.#drafter?.available() ?? false);
    this.#chosen = undefined;
    return choice;
  }

  /** The best of what the drafter gave and what can be proposed without it, should `after` be committed first. */
  #atHand(given: Block | undefined, path: GrammarCursor, after: readonly number[]): Block {
    const room = this.#room(after.length);
    return this.#proposers.reduce(
      (best, source) => this.#controller.better(best, path.allowed(source.propose(room, after))),
      given ? path.allowed(cut(given, 0, room)) : EMPTY,
    );
  }

  /** Sends a step after what is committed. */
  async #begin(): Promise<StepInFlight> {
    const began = performance.now();
    const of = { span: stepSpan(this.#span, this.#steps) };
    const controller = this.#controller;
    const choice = this.#choose();
    const given = this.#given;
    const atHand = this.#atHand(given, this.#path, []);
    const wanted = given ? 0 : controller.worthDrafting(choice.mode, this.#room(0), atHand);
    const fresh = wanted > 0 ? await this.#fresh(wanted, of) : { block: EMPTY, micros: 0 };
    const offered = controller.better(atHand, fresh.block);
    const block = controller.worthVerifying(offered, choice.mode);
    const verdict = this.#verifier.step(proposal(of, block, this.#path));
    return this.#send({ of, began, choice, offered, block, wanted, redraftMicros: fresh.micros, verdict });
  }

  /** Notes a step whose verify call has been sent, and has drafted what follows it. */
  #send(step: Step): StepInFlight {
    const committed = this.#expected().length + step.block.tokens.length;
    const beside = step.choice.mode === 'overlap' && this.#room(committed) > 0;
    const budget = beside ? this.#controller.budget(step.block.tokens.length) : 0;
    const sent: StepInFlight = { ...step, budget, draft: undefined, answered: step.began };
    this.#flight.push(sent);
    const onAnswer = () => {
      sent.answered = performance.now();
    };
    step.verdict.then(onAnswer, onAnswer);
    if (!beside) return sent;
    sent.draft = this.#draftBeside(sent).then((draft) => {
      onAnswer();
      sent.drafted = draft;
      this.#goAhead(sent);
      return draft;
    });
    return sent;
  }

  /** Tokens that the steps in flight before one, or all, commit if they end as the steps after them count on. */
  #expected(before = this.#flight.length): number[] {
    return this.#flight
      .slice(0, before)
      .flatMap(({ block, expected }) => (expected ? committedBy(block.tokens, expected) : []));
  }

  /** Drafts after a step's block. The verify call, which most steps wait for longest, leaves the process first. */
  async #draftBeside(step: StepInFlight): Promise<Draft | undefined> {
    await new Promise((resolve) => setImmediate(resolve));
    const place = this.#flight.indexOf(step);
    if (place < 0) return undefined;
    const { block, budget } = step;
    const assumed = this.#expected(place);
    // a branch starts with the token that the verifier says anyway
    const maxBranchLength = this.#controller.room(Number.POSITIVE_INFINITY) + 1;
    const after = {
      tokens: [...assumed, ...block.tokens],
      confidences: [...assumed.map(() => 1), ...this.#controller.chances(block)],
      assumed: assumed.length,
    };
    return this.#drafter?.step(after, { budget, maxBranchLength }, step.of);
  }

  /** Sends the next step for the outcome that a draft expects, while that of its own step is not known. */
  #goAhead(step: StepInFlight | undefined): void {
    const [branch, ...others] = step?.drafted?.branches ?? [];
    const isLast = step !== undefined && this.#flight.at(-1) === step;
    if (!isLast || this.#flight.length > (this.#limits.ahead ?? 0) || !branch || others.length > 0) return;
    const [nextToken] = branch.tokens;
    if (nextToken === undefined || branch.tokens.length < 2) return;
    const expected = { of: step.of, accepted: branch.accepted, nextToken };
    const after = [...this.#expected(), ...committedBy(step.block.tokens, expected)];
    const path = this.#path.after(after);
    const ends = this.#generated + after.length >= this.#request.maxTokens || after.some((token) => this.#ends(token));
    if (ends || !path || !this.#controller.worthGoingAhead()) return;
    const choice = this.#choose();
    if (choice.mode !== 'overlap') {
      this.#chosen = choice;
      return;
    }
    step.expected = expected;
    const of = { span: stepSpan(this.#span, this.#steps + this.#flight.length) };
    const offered = this.#atHand(afterFirst(branch), path, after);
    const block = this.#controller.worthVerifying(offered, choice.mode);
    const verdict = this.#verifier.stepAfter(expected, proposal(of, block, path));
    this.#send({ of, began: performance.now(), choice, offered, block, wanted: 0, redraftMicros: 0, verdict });
  }

  /** Gives up the steps in flight from a place on: what they were sent for has not come. */
  #drop(from = 0): void {
    const dropped = this.#flight.splice(from);
    this.#chosen ??= dropped[0]?.choice;
    for (const { of } of dropped) endSpan(of.span, { attributes: { [attribute.skipped]: true } });
  }

  async #finish(step: StepInFlight): Promise<GenerationStep> {
    const { block, choice } = step;
    const verified = (await step.verdict) ?? (await this.#again(step));
    const committed = committedBy(block.tokens, verified);
    const ended = committed.findIndex((token) => this.#ends(token));
    const tokens = ended < 0 ? committed : committed.slice(0, ended);
    this.#commit(step, verified, committed, tokens.length);
    const draft = await step.draft;
    const ahead = Math.max(0, this.#ended - step.began);
    const stepMicros = Math.round((step.answered - step.began - ahead) * 1000);
    this.#ended = step.answered;
    this.#given = this.#branchAfter(draft, verified);
    const finish = ended >= 0 ? 'stop' : this.#generated >= this.#request.maxTokens ? 'length' : undefined;
    const stats: StepStats = {
      step: this.#steps - 1,
      mode: choice.mode,
      reason: choice.reason,
      source: block.tokens.length > 0 ? block.source : 'none',
      offered: step.offered.tokens.length,
      budget: step.budget,
      drafted: block.tokens.length,
      accepted: verified.accepted,
      stepMicros,
      aheadMicros: Math.round(ahead * 1000),
      verifyMicros: verified.time.micros,
      draftMicros: draft?.micros ?? 0,
      redraftMicros: step.redraftMicros,
      verifyRunMicros: verified.time.runMicros,
      draftRunMicros: draft?.runMicros ?? 0,
    };
    if (this.#request.drafting !== false) this.#learn(step, verified, stats);
    const logProbabilities = verified.logProbabilities.slice(0, tokens.length);
    const tops = verified.tops.slice(0, tokens.length);
    return {
      tokens,
      proposed: block.tokens,
      logProbabilities,
      ...(tops.length > 0 && { tops }),
      stats,
      span: step.of.span,
      ...(finish && { finish }),
    };
  }

  /** What follows goes on from these tokens, all at once: a draft may send the next step at any moment. */
  #commit(step: StepInFlight, verified: Verdict, committed: readonly number[], counted: number): void {
    this.#flight.shift();
    this.#path.follow(committed);
    this.#drafter?.commit(committed);
    for (const source of this.#proposers) source.push(committed);
    this.#generated += counted;
    this.#steps++;
    const { expected } = step;
    if (!expected) return;
    const cameTrue = expected.accepted === verified.accepted && expected.nextToken === verified.nextToken;
    this.#controller.wentAhead(cameTrue);
    if (!cameTrue) this.#drop();
    // there may have been too many in flight when the last one's draft came
    this.#goAhead(this.#flight.at(-1));
  }

  /** A step that had been sent ahead to a verifier which was lost, and so none after it was run either. */
  async #again(step: StepInFlight): Promise<Verdict> {
    this.#drop(1);
    delete step.expected;
    const verifying = this.#verifier.step(proposal(step.of, step.block, this.#path));
    this.#goAhead(step);
    const verdict = await verifying;
    step.answered = performance.now();
    return verdict;
  }

  #learn({ block, budget, wanted }: StepInFlight, { time: verify }: Verdict, stats: StepStats): void {
    const { mode, accepted, stepMicros, draftMicros, redraftMicros } = stats;
    const times = { stepMicros, verify, draftMicros, redraftMicros };
    this.#controller.observe({ mode, block, accepted, budget, wanted, ...times });
  }

  /** Whether a token ends the text, of which it is no part. */
  #ends(token: number): boolean {
    const { stopTokens, ignoreEndOfText = false } = this.#request;
    if (stopTokens?.includes(token)) return true;
    return !ignoreEndOfText && (token === this.#model.endOfText || (this.#model.stopTokens?.includes(token) ?? false));
  }

  /**
   * The next block: the branch for what came true, without its first token, which was predicting the target's own from the same u.
   * If it predicted another one, or the budget left the branch out, the rest is of no use: undefined.
   */
  #branchAfter(draft: Draft | undefined, { accepted, nextToken }: Verdict): Block | undefined {
    const branch = branchThatFits(draft?.branches ?? [], accepted, nextToken);
    return branch && afterFirst(branch);
  }
}

const drafted = ({ tokens, confidences }: Branch): Block => ({ source: 'drafter', tokens, confidences });

/** A branch without its first token, which the verifier says itself. */
const afterFirst = (branch: Branch): Block => cut(drafted(branch), 1, Number.POSITIVE_INFINITY);

function proposal(step: StepUnderWay, { tokens }: Block, path: GrammarCursor): Proposal {
  return { step, block: tokens, allowed: path.masks(tokens) };
}

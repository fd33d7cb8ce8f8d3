import { afterFirstToken, blockOf, branchAfter, committedTokens, cut, isExpected } from './block.ts';
import { expectedContinuation, expectedTokens } from './continuation.ts';
import type { VerifyTime } from './cost-model.ts';
import { GrammarCursor } from './grammar-cursor.ts';
import type { Command, PipelineEvent, PipelineParts } from './pipeline-types.ts';
import type { Draft, DraftCall, ExpectedOutcome, StepOutcome, VerifyCall } from './ports.ts';
import {
  draftCall,
  endsText,
  finishedStep,
  plainStepsAhead,
  redraftCall,
  type StepInFlight,
  type StepStart,
  verifyCall,
} from './step-in-flight.ts';
import { type Block, EMPTY, type GenerationStep, type StepDecision } from './types.ts';

/**
 * Steps in flight of one request. Decides what to send and interprets the answers, without promises, clock or I/O.
 *
 * A step is a verify call, overlapped by a draft call that prepares the next block for the step's likely outcomes. If
 * the draft arrives first and expects a single outcome, the next step is sent ahead, assuming that outcome: the
 * verifier runs the step only if the outcome occurs, and the drafter continues from there. So several steps may be in
 * flight, each assuming the outcome of the step before it. If a step's outcome differs from the assumed one, the
 * steps after it are dropped. Plain steps that need no outcome are always sent ahead.
 *
 * Callers own the clock: `driver.ts` runs the pipeline in real time, `bench/scaling` in virtual time. Both use this
 * loop:
 *
 *     const call = pipeline.firstDraft();         // only with a drafter; the answer is a `redraft` event
 *     for (;;) {
 *       for (const command of pipeline.next(now, drafterAvailable)) ...   // send it, and pass the answer to `receive`
 *       const step = pipeline.takeFinished();
 *       if (!step) pipeline.receive(...);         // the next event; advance the clock to its time
 *       else if (step.finish) break;
 *     }
 *
 * After each `verify` command with `overlapped`, pass a `verifySent` event; the draft command follows that event.
 * Without a network, pass the event at once. Events of one kind must arrive in the order of their commands. `now` and
 * `at` are `performance.now()` values.
 */
export class DecodePipeline {
  readonly #parts: PipelineParts;
  readonly #cursor: GrammarCursor;
  /** Steps that were sent and have not finished, in order. */
  readonly #flight: StepInFlight[] = [];
  readonly #commands: Command[] = [];
  /** Number of committed tokens, and number of finished steps. */
  #generated = 0;
  #steps = 0;
  #endedAt = Number.NEGATIVE_INFINITY;
  /** The drafter's block for the next step. Undefined if no branch matches the outcome, so that a redraft may pay off. */
  #nextDraft: Block | undefined = EMPTY;
  /** The redraft in flight, and the step that waits for it. No step waits for the first draft of the request. */
  #redraft: { readonly start?: StepStart } | undefined;
  /** Decision for a step that was dropped or never sent. The next step uses this decision. */
  #decision: StepDecision | undefined;
  /** True if another step may now be sent ahead after the last one in flight. */
  #mayExtend = false;
  #finished: GenerationStep | undefined;
  /** Time of the request's first verify call, which was not sent ahead. */
  #firstTime: VerifyTime | undefined;

  constructor(parts: PipelineParts) {
    this.#parts = parts;
    this.#cursor = new GrammarCursor(parts.request.grammar);
  }

  /**
   * Returns the call that drafts the first block, for which the first step waits. Returns undefined if there is no
   * room.
   */
  firstDraft(): DraftCall | undefined {
    const room = this.#room(0);
    if (room === 0) return undefined;
    this.#redraft = {};
    return redraftCall(undefined, room);
  }

  /** Processes an event. Answers to dropped steps are ignored. */
  receive(event: PipelineEvent): void {
    if (event.kind === 'redraft') {
      this.#receiveRedraft(event.draft);
      return;
    }
    const step = this.#flight.find(({ ref }) => ref === event.step);
    if (!step) return;
    if (event.kind === 'verifySent') {
      if (step.draftState === 'due') this.#sendDraft(step);
      return;
    }
    step.answeredAt = event.at;
    if (event.kind === 'verdict') {
      if (event.verdict) step.verdict = event.verdict;
      else step.isLost = true;
      return;
    }
    step.draft = event.draft;
    step.draftState = 'answered';
    this.#mayExtend = true;
  }

  /**
   * Finishes the first step if its answers have arrived, and returns the commands to execute now, in order. Call it
   * after each event, and after taking a finished step.
   */
  next(now: number, drafterAvailable: boolean): Command[] {
    if (!this.#finished) this.#finishFirst();
    if (!this.#finished && !this.#redraft) {
      const [first] = this.#flight;
      if (!first) this.#begin(now, this.#decide(drafterAvailable));
      else if (first.isLost) this.#resend(first);
    }
    if (this.#mayExtend) this.#extend(now, drafterAvailable);
    this.#mayExtend = false;
    if (this.#parts.isPlain && this.#flight.length > 0) this.#extendPlain(now, drafterAvailable);
    return this.#commands.splice(0);
  }

  /** Returns the step that has just finished, once. The next step starts after this call. */
  takeFinished(): GenerationStep | undefined {
    const finished = this.#finished;
    this.#finished = undefined;
    return finished;
  }

  /** Finishes the first step in flight if all of its answers have arrived. */
  #finishFirst(): void {
    const [step] = this.#flight;
    if (!step?.verdict || step.draftState === 'sent') return;
    const { policy, request } = this.#parts;
    const { verdict } = step;
    this.#flight.shift();
    this.#firstTime ??= verdict.time;
    const committed = committedTokens(step.block.tokens, verdict);
    const end = committed.findIndex((token) => endsText(token, this.#parts));
    const count = end < 0 ? committed.length : end;
    this.#commit(committed, count);
    if (step.expected) this.#checkExpected(step.expected, verdict);
    this.#mayExtend = true;
    const branch = branchAfter(step.draft?.branches ?? [], verdict);
    this.#nextDraft = branch && afterFirstToken(branch);
    const finish = end >= 0 ? 'stop' : this.#generated >= request.maxTokens ? 'length' : undefined;
    const previousEndedAt = this.#endedAt;
    this.#finished = finishedStep({ ...step, verdict }, { count, finish, previousEndedAt, branch });
    this.#endedAt = step.answeredAt;
    if (finish) this.#drop(0);
    if (request.drafting === false) return;
    const { block, redraftLength } = step;
    policy.observe({ ...this.#finished.stats, block, redraftLength, verify: verdict.time });
  }

  /** @param counted number of tokens that belong to the text, without a token that ends it */
  #commit(tokens: readonly number[], counted: number): void {
    this.#cursor.follow(tokens);
    this.#commands.push({ kind: 'commit', tokens });
    for (const proposer of this.#parts.proposers) proposer.push(tokens);
    this.#generated += counted;
    this.#steps++;
  }

  /** Drops the steps sent ahead unless their expected outcome occurred. */
  #checkExpected(expected: ExpectedOutcome, outcome: StepOutcome): void {
    const cameTrue = isExpected(outcome, expected);
    this.#parts.policy.sentAhead(cameTrue);
    if (!cameTrue) this.#drop(0);
  }

  /** Starts a step after the committed tokens. */
  #begin(now: number, decision: StepDecision): void {
    const { policy } = this.#parts;
    const candidate = this.#bestProposal(this.#nextDraft, this.#cursor, []);
    const redraftLength = this.#nextDraft ? 0 : policy.worthDrafting(decision.mode, this.#room(0), candidate);
    const start = { ref: { index: this.#steps }, startedAt: now, decision, candidate, redraftLength, redraftMicros: 0 };
    if (redraftLength === 0) this.#send(start, this.#cursor);
    else {
      this.#redraft = { start };
      this.#commands.push(redraftCall(start.ref, redraftLength));
    }
  }

  /** Resends a step that was sent ahead to a lost verifier, and drops the steps after it, which were not run either. */
  #resend(step: StepInFlight): void {
    this.#drop(1);
    delete step.expected;
    step.isLost = false;
    this.#commands.push(verifyCall(step, this.#cursor));
    this.#mayExtend = true;
  }

  /** Sends the next step ahead, assuming the outcome that the draft of the last step expects. */
  #extend(now: number, drafterAvailable: boolean): void {
    const { policy, limits, request } = this.#parts;
    const last = this.#flight.at(-1);
    if (!last || this.#flight.length > (limits.ahead ?? 0)) return;
    const wanted = request.maxTokens - this.#generated;
    const next = expectedContinuation(this.#flight, this.#cursor, wanted, this.#parts);
    if (!next || !policy.worthSendingAhead()) return;
    const decision = this.#decide(drafterAvailable);
    if (decision.mode !== 'overlap') {
      this.#decision = decision;
      return;
    }
    const { outcome, tokens, draft, cursor } = next;
    last.expected = outcome;
    const ref = { index: this.#steps + this.#flight.length };
    const candidate = this.#bestProposal(draft, cursor, tokens);
    this.#send({ ref, startedAt: now, decision, candidate, redraftLength: 0, redraftMicros: 0 }, cursor, outcome);
  }

  /**
   * Sends enough plain steps ahead that the verifier never waits for the gateway. The steps after the end of the
   * text are wasted.
   */
  #extendPlain(now: number, drafterAvailable: boolean): void {
    const { limits, request } = this.#parts;
    const ahead = Math.min(plainStepsAhead(this.#firstTime), limits.ahead ?? 0);
    while (this.#flight.length <= ahead && this.#generated + this.#flight.length < request.maxTokens) {
      const last = this.#flight.at(-1) as StepInFlight;
      const ref = { index: this.#steps + this.#flight.length };
      const start = { ref, startedAt: now, decision: this.#decide(drafterAvailable), candidate: EMPTY };
      this.#send({ ...start, redraftLength: 0, redraftMicros: 0 }, this.#cursor, { of: last.ref });
    }
  }

  #receiveRedraft(draft: Draft | undefined): void {
    const { start } = this.#redraft ?? {};
    this.#redraft = undefined;
    const [branch] = draft?.branches ?? [];
    const block = branch ? this.#cursor.allowed(blockOf(branch)) : EMPTY;
    if (!start) this.#nextDraft = block;
    else {
      const candidate = this.#parts.policy.better(start.candidate, block);
      this.#send({ ...start, candidate, redraftMicros: draft?.micros ?? 0 }, this.#cursor);
    }
  }

  /**
   * Sends the verify call of a step.
   *
   * @param cursor position of the block's start in the grammar
   * @param after outcome of the previous step that a step sent ahead assumes
   */
  #send(start: StepStart, cursor: GrammarCursor, after?: VerifyCall['after']): void {
    const { policy } = this.#parts;
    const { candidate, decision } = start;
    const block = cursor.affordable(policy.worthVerifying(candidate, decision.mode));
    const { length } = block.tokens;
    const overlapped = decision.mode === 'overlap' && this.#room(expectedTokens(this.#flight).length + length) > 0;
    const budget = overlapped ? policy.budget(length) : 0;
    const draftState = overlapped ? 'due' : 'none';
    const step: StepInFlight = { ...start, block, budget, draftState, isLost: false, answeredAt: start.startedAt };
    this.#flight.push(step);
    this.#commands.push(verifyCall(step, cursor, after));
  }

  /** Requests a draft that continues a step's block. */
  #sendDraft(step: StepInFlight): void {
    step.draftState = 'sent';
    const before = this.#flight.slice(0, this.#flight.indexOf(step));
    this.#commands.push(draftCall(step, expectedTokens(before), this.#parts.policy));
  }

  /** Drops the steps in flight, starting at an index. */
  #drop(from: number): void {
    const dropped = this.#flight.splice(from);
    this.#decision ??= dropped[0]?.decision;
    for (const { ref } of dropped) this.#commands.push({ kind: 'drop', step: ref });
  }

  #decide(drafterAvailable: boolean): StepDecision {
    const decision = this.#decision ?? this.#parts.policy.choose(drafterAvailable);
    this.#decision = undefined;
    return decision;
  }

  /** Returns the best block of the drafter and the proposers, assuming that `after` is committed first. */
  #bestProposal(draft: Block | undefined, cursor: GrammarCursor, after: readonly number[]): Block {
    const { proposers, policy } = this.#parts;
    const room = this.#room(after.length);
    return proposers.reduce(
      (best, proposer) => policy.better(best, cursor.allowed(proposer.propose(room, after))),
      draft ? cursor.allowed(cut(draft, 0, room)) : EMPTY,
    );
  }

  /** Returns the maximum block length after `committed` more tokens. */
  #room(committed: number): number {
    return this.#parts.policy.room(this.#parts.request.maxTokens - this.#generated - committed);
  }
}

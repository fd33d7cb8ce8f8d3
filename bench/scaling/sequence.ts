import { isExpected } from '../../gateway/src/decode/block.ts';
import { DecodePipeline } from '../../gateway/src/decode/pipeline.ts';
import type { Command, PipelineEvent, StepPolicy } from '../../gateway/src/decode/pipeline-types.ts';
import type { Draft, DraftCall, StepOutcome, StepRef, VerifyCall } from '../../gateway/src/decode/ports.ts';
import type { StepStats } from '../../gateway/src/decode/types.ts';
import { sum } from '../statistics.ts';
import type { Clock } from './clock.ts';
import { DrafterContext, type DraftModel, type SimulatedOutcome } from './draft-model.ts';
import type { Replica, Run } from './replica.ts';

/** Number of microseconds (virtual time) in a millisecond (the pipeline's clock). */
const MILLIS = 1000;

/** Network delays and the gateway's draft timeout. All times are in microseconds. */
export interface Network {
  /** One-way delay between the gateway and the verifier. */
  readonly delay: number;
  /** One-way delay between the gateway and the drafter. Default: `delay`. */
  readonly drafterDelay?: number;
  /** Longest time that a draft may take (PTP_DRAFT_TIMEOUT_SECONDS). */
  readonly draftTimeout: number;
}

export interface SequenceParts {
  /** Number of prompt tokens. */
  readonly prompt: number;
  /** Number of tokens to generate. */
  readonly maxTokens: number;
  /** Maximum number of steps sent ahead. */
  readonly ahead: number;
  readonly policy: StepPolicy;
  readonly drafts: DraftModel;
  readonly clock: Clock;
  readonly network: Network;
  readonly verifier: Replica;
  /** Replica that drafts. Undefined for plain decoding. */
  readonly drafter: Replica | undefined;
  readonly onStep: (stats: StepStats) => void;
}

/** A verify call in flight. */
interface Verification {
  readonly call: VerifyCall;
  readonly outcome: SimulatedOutcome;
  /** Number of context tokens before the block, including the tokens of steps in flight. */
  readonly context: number;
  readonly sent: number;
}

/** Decodes one request in virtual time with the gateway's own pipeline, in place of gateway/src/decode/driver.ts. */
export class Sequence {
  readonly #parts: SequenceParts;
  readonly #pipeline: DecodePipeline;
  readonly #onEnd: () => void;
  readonly #context = new DrafterContext();
  readonly #verifications = new Map<StepRef, Verification>();
  /** Calls that wait at the verifier, which serves one call at a time. */
  readonly #arrived: Verification[] = [];
  #isVerifying = false;
  /** Outcome of the verifier's last step. Undefined if that step was skipped. */
  #lastOutcome: StepOutcome | undefined;
  /** Events that happen without delay. */
  readonly #events: PipelineEvent[] = [];
  #committed: number;
  /** The draft call in flight, with the time at which it was sent. */
  #draft: { readonly sent: number } | undefined;
  /** True while the answer of a timed-out draft is still due. Until it arrives, the drafter is not available. */
  #overdue = false;

  /** @param onEnd function that is called after the last step */
  constructor(parts: SequenceParts, onEnd: () => void) {
    const { maxTokens, ahead, policy } = parts;
    this.#parts = parts;
    this.#onEnd = onEnd;
    this.#committed = parts.prompt;
    this.#pipeline = new DecodePipeline({
      request: { maxTokens, ignoreEndOfText: true },
      model: { endOfText: -1 },
      limits: { ahead },
      policy,
      proposers: [],
    });
  }

  start(): void {
    const first = this.#parts.drafter && this.#pipeline.firstDraft();
    if (first) this.#sendDraft(first);
    else this.#advance();
  }

  /** Executes the pipeline's commands until the pipeline waits for an answer. */
  #advance(): void {
    const { clock, drafter, onStep } = this.#parts;
    for (;;) {
      const isAvailable = drafter !== undefined && !this.#overdue;
      for (const command of this.#pipeline.next(clock.now / MILLIS, isAvailable)) this.#carryOut(command);
      const step = this.#pipeline.takeFinished();
      if (step) {
        onStep(step.stats);
        if (step.finish) break;
        continue;
      }
      const event = this.#events.shift();
      if (!event) return;
      this.#pipeline.receive(event);
    }
    this.#onEnd();
  }

  #answer(event: PipelineEvent): void {
    this.#pipeline.receive(event);
    this.#advance();
  }

  #carryOut(command: Command): void {
    switch (command.kind) {
      case 'commit':
        this.#committed += command.tokens.length;
        this.#context.commit(command.tokens);
        break;
      case 'drop':
        this.#verifications.delete(command.step);
        break;
      case 'verify':
        this.#sendVerify(command);
        break;
      default:
        this.#sendDraft(command);
    }
  }

  #sendVerify(call: VerifyCall): void {
    const { clock, network, drafts } = this.#parts;
    const { step, block, after } = call;
    const before = after && this.#verifications.get(after.of);
    const context = before ? before.context + ('accepted' in after ? after.accepted : 0) + 1 : this.#committed;
    const verification = { call, outcome: drafts.outcome(block), context, sent: clock.now };
    this.#verifications.set(step, verification);
    if (call.overlapped) this.#events.push({ kind: 'verifySent', step });
    clock.at(clock.now + network.delay, () => {
      this.#arrived.push(verification);
      this.#verifyNext();
    });
  }

  /**
   * Serves the calls at the verifier in order. A step sent ahead for an outcome that did not occur is skipped and gets
   * no answer.
   */
  #verifyNext(): void {
    const { clock, network, verifier } = this.#parts;
    const next = this.#isVerifying ? undefined : this.#arrived.shift();
    if (!next) return;
    const { block, after } = next.call;
    const isSkipped = after && !(this.#lastOutcome && isExpected(this.#lastOutcome, after));
    this.#lastOutcome = isSkipped ? undefined : next.outcome;
    if (isSkipped) {
      this.#verifyNext();
      return;
    }
    this.#isVerifying = true;
    const done = (run: Run) => {
      clock.at(clock.now + network.delay, () => this.#answerVerify(next, run));
      this.#isVerifying = false;
      this.#verifyNext();
    };
    verifier.submit({ tokens: block.length + 1, context: next.context, done });
  }

  #answerVerify({ call, outcome, sent }: Verification, run: Run): void {
    const { now } = this.#parts.clock;
    const { accepted, nextToken } = outcome;
    // The same times as the verifier reports (gateway/src/clients/verify-stream.ts).
    const time = { micros: now - sent, ...run, drafted: run.batchTokens / run.batchSize - 1 };
    const verdict = { accepted, nextToken, logProbabilities: [], tops: [], time };
    this.#answer({ kind: 'verdict', step: call.step, verdict, at: now / MILLIS });
  }

  #sendDraft(call: DraftCall): void {
    const { clock, drafter, drafts, network } = this.#parts;
    const { kind, step } = call;
    const event = (draft: Draft | undefined) => ({ kind, step, draft, at: clock.now / MILLIS });
    if (!drafter || this.#overdue) {
      this.#events.push(event(undefined));
      return;
    }
    const outcome = kind === 'draft' && step ? this.#verifications.get(step)?.outcome : undefined;
    const branches = drafts.branches(call, outcome);
    const tokens = this.#context.read(call.tokens) + sum(branches.map((branch) => branch.tokens.length));
    const pending = { sent: clock.now };
    this.#draft = pending;
    // Gives up a draft that takes too long, as gateway/src/clients/draft-stream.ts does.
    clock.at(pending.sent + network.draftTimeout, () => {
      if (this.#draft !== pending) return;
      this.#draft = undefined;
      this.#overdue = true;
      this.#answer(event(undefined));
    });
    const { drafterDelay = network.delay } = network;
    const arrive = ({ queueMicros, runMicros, batchSize }: Run) => {
      if (this.#draft !== pending) {
        this.#overdue = false;
        return;
      }
      this.#draft = undefined;
      this.#answer(event({ branches, micros: clock.now - pending.sent, queueMicros, runMicros, batchSize }));
    };
    const done = (run: Run) => clock.at(clock.now + drafterDelay, () => arrive(run));
    const context = this.#committed + call.assumed;
    clock.at(clock.now + drafterDelay, () => drafter.submit({ tokens, context, done }));
  }
}

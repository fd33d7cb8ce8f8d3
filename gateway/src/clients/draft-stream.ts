import type { BidiCall, RequestInit } from '@ptp/protocol/client';
import { PtpError, toPtpError } from '@ptp/protocol/errors';
import type { Branch, DrafterService, DraftResponse, DraftResult } from '@ptp/protocol/gen/ptp/v1/drafter_pb';
import { Backoff } from '@ptp/service-kit/backoff';
import type { Draft, DraftCall, DraftStream } from '../decode/ports.ts';
import type { GenerationRequest } from '../decode/types.ts';
import { Answers } from './answers.ts';
import type { DraftDeadline } from './draft-deadline.ts';
import { sequenceStart } from './sequence-start.ts';
import { withTimeout } from './with-timeout.ts';

type Call = BidiCall<RequestInit<typeof DrafterService.method.draft>, DraftResponse>;

/** Backoff in milliseconds before a lost or late drafter is tried again. */
const FIRST_PAUSE_MS = 250;
const LONGEST_PAUSE_MS = 8000;

/** The step that an answer must match. */
interface Sent {
  readonly step: number;
  readonly assumed: number;
  readonly block: readonly number[];
  readonly plan: { readonly budget: number; readonly maxBranchLength: number };
}

/** Parts of a draft stream. */
export interface DraftStreamParts {
  /**
   * Opens a call. Returns undefined while no drafter is usable. When the call has ended, the stream calls `leave` and
   * passes true for `failed` if the drafter was lost.
   */
  readonly open: () => { readonly call: Call; readonly leave: (failed: boolean) => void } | undefined;
  readonly request: GenerationRequest;
  /** W3C trace context of the request. */
  readonly traceparent: string;
  readonly deadline: DraftDeadline;
  readonly vocabulary: number;
  readonly onFailure: (error: unknown) => void;
}

/** State of one call to a drafter. */
interface OpenCall {
  readonly call: Call;
  readonly leave: (failed: boolean) => void;
  readonly answers: Answers<DraftResponse | undefined>;
  /** True once the drafter has processed the prompt. */
  ready: boolean;
  /** True while an answer is late. No further step is sent until the late answer has arrived and been dropped. */
  overdue: boolean;
  /** Number of steps sent. */
  steps: number;
  /** Number of tokens sent: the prompt and everything committed. */
  sentTokens: number;
}

/** A Draft call. After a loss, it is reopened with all tokens committed until then. Drafts never affect the text. */
export class GrpcDraftStream implements DraftStream {
  readonly #parts: DraftStreamParts;
  /** The prompt and everything committed. */
  readonly #tokens: number[];
  #current: OpenCall | undefined;
  /** Settles when the current call is ready or has failed. */
  #opening: Promise<void> = Promise.resolve();
  readonly #backoff = new Backoff(FIRST_PAUSE_MS, LONGEST_PAUSE_MS);
  #retryAt = 0;
  /** Time before which no draft is requested, because the last draft was late. */
  #pausedUntil = 0;

  constructor(parts: DraftStreamParts) {
    this.#parts = parts;
    this.#tokens = [...parts.request.prompt];
    this.#connect();
  }

  available(): boolean {
    const now = performance.now();
    if (!this.#current && now >= this.#retryAt) this.#connect();
    return isReady(this.#current) && now >= this.#pausedUntil;
  }

  async opened(verifierOpened: Promise<unknown>): Promise<void> {
    const opening = this.#opening;
    const late = verifierOpened.then(() => withTimeout(this.#parts.deadline.openingMs, 'the drafter', opening));
    await Promise.race([opening, late]).catch(() => {});
  }

  commit(tokens: readonly number[]): void {
    this.#tokens.push(...tokens);
  }

  async step({ tokens, confidences, assumed, budget, maxBranchLength, traceparent = '' }: DraftCall): Promise<Draft> {
    const current = this.available() ? this.#current : undefined;
    if (!current) throw new PtpError('unavailable', 'the drafter is not available');
    const sent = performance.now();
    try {
      const step = {
        step: current.steps++,
        committed: this.#tokens.slice(current.sentTokens),
        block: [...tokens],
        blockConfidences: [...confidences],
        assumed,
        plan: { budget, maxBranchLength },
        trace: { traceparent },
      };
      current.sentTokens = this.#tokens.length;
      current.call.send({ kind: { case: 'step', value: step } });
      const { answer, micros } = await this.#answer(current, sent);
      const { branches: received, timings } = this.#resultOf(answer, step);
      this.#backoff.reset();
      const branches = received.map((branch) => ({ ...branch, accepted: branch.accepted - assumed }));
      const { queueUs: queueMicros = 0, runUs: runMicros = 0, batchSize = 1 } = timings ?? {};
      return { branches, micros, queueMicros, runMicros, batchSize };
    } catch (error) {
      if (!current.overdue) this.#fail(current, error);
      throw toPtpError(error);
    }
  }

  /** Ends the call. A pending draft is still answered, but a call that is overdue or not open yet is cancelled. */
  close(): void {
    const current = this.#current;
    if (isReady(current)) current?.call.finish();
    else current?.call.cancel();
    current?.leave(false);
    this.#current = undefined;
    this.#retryAt = Number.POSITIVE_INFINITY;
  }

  /**
   * Waits for the next answer. If it is late, the call stays open, because opening a new call would only add the prompt
   * to the drafter's load. The next draft is requested after a pause, because waiting for each late draft would make
   * decoding slower than it is without a drafter.
   *
   * @throws PtpError if the drafter fails, and with `overdue` set if its answer is only late
   */
  #answer(current: OpenCall, sent: number) {
    const { deadline } = this.#parts;
    const next = current.answers.next(sent);
    return withTimeout(deadline.milliseconds, 'the drafter', next).catch((error) => {
      if (toPtpError(error).code === 'deadline_exceeded' && this.#current === current) {
        current.overdue = true;
        this.#pausedUntil = performance.now() + this.#backoff.next();
        deadline.late();
        const onAnswer = ({ micros }: { readonly micros: number }) => {
          current.overdue = false;
          deadline.arrived(micros);
        };
        next.then(onAnswer, (error) => this.#fail(current, error));
      }
      throw error;
    });
  }

  /** Checks an answer. @throws PtpError if it is not a valid result of the step */
  #resultOf(answer: DraftResponse | undefined, sent: Sent): DraftResult {
    if (answer?.kind.case !== 'result' || answer.kind.value.step !== sent.step) throw ended();
    const { value } = answer.kind;
    const branches = requested(value.branches, sent);
    if (branches.every((branch) => isSound(branch, sent, this.#parts.vocabulary))) return { ...value, branches };
    throw new PtpError('internal', 'the drafter sent an invalid draft');
  }

  #connect(): void {
    const { open, request, traceparent } = this.#parts;
    const opened = open();
    this.#retryAt = performance.now() + this.#backoff.delayMs;
    if (!opened) return;
    const { call } = opened;
    const answers = new Answers(() => call.receive());
    const sentTokens = this.#tokens.length;
    const current: OpenCall = { ...opened, answers, ready: false, overdue: false, steps: 0, sentTokens };
    this.#current = current;
    const value = { start: sequenceStart(request, this.#tokens), trace: { traceparent } };
    call.send({ kind: { case: 'open', value } });
    this.#opening = call.receive().then(
      (response) => {
        if (response?.kind.case === 'opened') current.ready = true;
        else this.#fail(current, ended());
      },
      (error) => this.#fail(current, error),
    );
  }

  #fail(failed: OpenCall, error: unknown): void {
    if (this.#current !== failed) return;
    failed.call.cancel();
    failed.leave(true);
    this.#current = undefined;
    this.#retryAt = performance.now() + this.#backoff.next();
    this.#parts.onFailure(error);
  }
}

/** Returns true if the call can take another step. */
function isReady(current: OpenCall | undefined): boolean {
  return current?.ready === true && !current.overdue;
}

/** Drops branches and tokens that exceed the step's plan. */
function requested(branches: readonly Branch[], { assumed, block, plan }: Sent): Branch[] {
  let budget = plan.budget;
  return branches.slice(0, block.length - assumed + 1).flatMap((branch) => {
    const length = Math.min(branch.tokens.length, plan.maxBranchLength, budget);
    budget -= length;
    if (length === branch.tokens.length) return [branch];
    const [tokens, confidences] = [branch.tokens.slice(0, length), branch.confidences.slice(0, length)];
    return length > 0 ? [{ ...branch, tokens, confidences }] : [];
  });
}

/** Returns true if a branch can be passed on to the verifier, which rejects steps with invalid tokens. */
function isSound({ accepted, tokens, confidences }: Branch, { assumed, block }: Sent, vocabulary: number): boolean {
  return (
    accepted >= assumed &&
    accepted <= block.length &&
    tokens.length === confidences.length &&
    tokens.every((token) => token < vocabulary) &&
    confidences.every((confidence) => confidence >= 0 && confidence <= 1)
  );
}

const ended = () => new PtpError('unavailable', 'the drafter ended the stream');

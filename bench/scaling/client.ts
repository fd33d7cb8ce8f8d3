import type { DraftLimits } from '../../gateway/src/loop/controller.ts';
import type { Clock } from './clock.ts';
import type { Replica, Run } from './replica.ts';
import { type Answer, type Answers, type Call, type DraftModel, type Policy, type Step, sequence } from './sequence.ts';

/** What a client asks for, and how far the services are. Times in microseconds. */
export interface Load {
  /** Fewest and most tokens of a prompt, which is taken as read, and of what is generated. */
  readonly prompt: readonly [number, number];
  readonly output: readonly [number, number];
  /** From the gateway to a service, and as much back. */
  readonly delay: number;
  /** How long a draft is waited for (PTP_DRAFT_TIMEOUT_MILLIS). */
  readonly draftTimeout: number;
  readonly limits: DraftLimits;
}

export interface ClientParts {
  readonly load: Load;
  readonly clock: Clock;
  readonly drafts: DraftModel;
  /** A new sequence's. */
  readonly policy: () => Policy;
  readonly random: () => number;
  readonly verifier: Replica;
  readonly drafter: Replica | undefined;
  readonly onStep: (step: Step) => void;
  /** A draft came too late. */
  readonly onLate: () => void;
}

type Steps = Generator<readonly Call[], void, Answers>;
type Answered = (answer: Answer | undefined) => void;

/** Has one sequence after another: sends its calls over the network and goes on when all have been answered. */
export class Client {
  readonly #parts: ClientParts;
  #sequences = 0;
  /** The draft call in flight that is still waited for. */
  #draft: { readonly sent: number; readonly answered: Answered } | undefined;
  /** A draft has not been answered in time; no other is asked for before its answer has come. */
  #overdue = false;
  #watching = false;

  constructor(parts: ClientParts) {
    this.#parts = parts;
  }

  /** @param amid whether a random share of it counts as generated already, so that the first sequences end at different times */
  begin(amid: boolean): void {
    const { load, random, policy, drafter, clock, drafts, onStep } = this.#parts;
    const between = ([low, high]: readonly [number, number]) => low + Math.floor(random() * (high - low + 1));
    const [prompt, output] = [between(load.prompt), between(load.output)];
    const done = amid ? Math.floor(random() * output) : 0;
    this.#sequences++;
    this.#overdue = false;
    const steps = sequence({
      prompt: prompt + done,
      maxTokens: output - done,
      policy: policy(),
      drafting: drafter !== undefined && load.limits.mode !== 'plain',
      available: () => !this.#overdue,
      drafts,
      clock,
      random,
      onStep,
    });
    this.#send(steps, steps.next());
  }

  #send(steps: Steps, { value: calls, done }: IteratorResult<readonly Call[], void>): void {
    if (done || !calls) {
      this.begin(false);
      return;
    }
    const answers: (Answer | undefined)[] = calls.map(() => undefined);
    let open = calls.length;
    for (const [i, call] of calls.entries()) {
      const answered: Answered = (answer) => {
        answers[i] = answer;
        if (--open === 0) this.#send(steps, steps.next(answers));
      };
      if (call.to === 'verifier') this.#call(this.#parts.verifier, call, answered);
      else this.#askDrafter(call, answered);
    }
  }

  #call(replica: Replica, { tokens, context }: Call, answered: Answered): void {
    const { clock, load } = this.#parts;
    const sent = clock.now;
    const done = (run: Run) => clock.at(clock.now + load.delay, () => answered({ micros: clock.now - sent, run }));
    clock.at(sent + load.delay, () => replica.submit({ tokens, context, done }));
  }

  #askDrafter(call: Call, answered: Answered): void {
    const { drafter, clock } = this.#parts;
    const draft = { sent: clock.now, answered };
    const of = this.#sequences;
    this.#draft = draft;
    this.#watch(draft.sent);
    this.#call(drafter as Replica, call, (answer) => {
      if (this.#draft === draft) {
        this.#draft = undefined;
        answered(answer);
      } else if (this.#sequences === of) this.#overdue = false;
    });
  }

  /** Gives up a draft that takes too long, as gateway/src/services/draft-stream.ts does. One timer serves all, as most are answered long before. */
  #watch(sent: number): void {
    const { clock, load, onLate } = this.#parts;
    if (this.#watching) return;
    this.#watching = true;
    clock.at(sent + load.draftTimeout, () => {
      this.#watching = false;
      const draft = this.#draft;
      if (draft && draft.sent > sent) this.#watch(draft.sent);
      else if (draft) {
        this.#draft = undefined;
        this.#overdue = true;
        onLate();
        draft.answered(undefined);
      }
    });
  }
}

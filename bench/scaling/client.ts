import type { DraftLimits } from '../../gateway/src/decode/controller.ts';
import type { Clock } from './clock.ts';
import type { Replica, Run } from './replica.ts';
import {
  type Answer,
  type Call,
  type DraftModel,
  type Policy,
  type Sent,
  Sequence,
  type Step,
  type Wait,
} from './sequence.ts';

/** What a client asks for, and how far the services are. Times in microseconds. */
export interface Load {
  /** Fewest and most tokens of a prompt, which is taken as read, and of what is generated. */
  readonly prompt: readonly [number, number];
  readonly output: readonly [number, number];
  /** From the gateway to the verifier, and as much back. */
  readonly delay: number;
  /** The same to the drafter; `delay` unless given. */
  readonly drafterDelay?: number;
  /** How long a draft is waited for (PTP_DRAFT_TIMEOUT_SECONDS). */
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

/** A call, and what has come of it. */
class Ticket implements Sent {
  at: number | undefined;
  answer: Answer | undefined;
  /** Of a verify call: whether the verifier is through with it, and has run it. */
  verified: 'run' | 'skipped' | undefined;
  /** Steps that were sent after it, and have arrived. */
  readonly followers: (() => void)[] = [];
}

/** Has one sequence after another: sends its calls over the network and goes on when what it waits for has been answered. */
export class Client {
  readonly #parts: ClientParts;
  #sequences = 0;
  #steps: Generator<Wait, void, void> | undefined;
  #wait: Wait | undefined;
  /** The draft call in flight that is still waited for. */
  #draft: { readonly sent: number; readonly ticket: Ticket } | undefined;
  /** A draft has not been answered in time; no other is asked for before its answer has come. */
  #overdue = false;
  #watching = false;

  constructor(parts: ClientParts) {
    this.#parts = parts;
  }

  /** @param amid whether a random share of it counts as generated already, so that the first sequences end at different times */
  begin(amid: boolean): void {
    this.#start(amid);
    this.#goOn();
  }

  #start(amid: boolean): void {
    const { load, random, policy, drafter, clock, drafts, onStep } = this.#parts;
    const between = ([low, high]: readonly [number, number]) => low + Math.floor(random() * (high - low + 1));
    const [prompt, output] = [between(load.prompt), between(load.output)];
    const done = amid ? Math.floor(random() * output) : 0;
    this.#sequences++;
    this.#overdue = false;
    const sequence = new Sequence({
      prompt: prompt + done,
      maxTokens: output - done,
      policy: policy(),
      ahead: load.limits.ahead ?? 0,
      drafting: drafter !== undefined && load.limits.mode !== 'plain',
      available: () => !this.#overdue,
      drafts,
      clock,
      random,
      send: (call) => this.#send(call),
      onStep,
    });
    this.#steps = sequence.run();
    this.#wait = { until: 'all', of: [] };
  }

  #goOn(): void {
    while (this.#wait && isOver(this.#wait)) {
      this.#wait = undefined;
      const { value, done } = (this.#steps as Generator<Wait, void, void>).next();
      if (done) this.#start(false);
      else this.#wait = value as Wait;
    }
  }

  #send(call: Call): Sent {
    const ticket = new Ticket();
    const { clock, load, verifier, drafter } = this.#parts;
    if (call.to === 'drafter') this.#askDrafter(drafter as Replica, call, ticket);
    else clock.at(clock.now + load.delay, () => this.#verify(verifier, call, ticket, clock.now - load.delay));
    return ticket;
  }

  #answered(ticket: Ticket, answer: Answer | undefined): void {
    ticket.at = this.#parts.clock.now;
    ticket.answer = answer;
    this.#goOn();
  }

  /** A verify call has arrived. One that was sent ahead waits for the one before it, and is run if that ended as expected. */
  #verify(replica: Replica, call: Call, ticket: Ticket, sent: number): void {
    const { clock, load } = this.#parts;
    const before = call.after?.call as Ticket | undefined;
    const through = (verified: 'run' | 'skipped') => {
      ticket.verified = verified;
      for (const follow of ticket.followers.splice(0)) follow();
    };
    const start = () => {
      // nobody waits for the answer of one that is skipped
      if (before?.verified === 'skipped' || call.after?.asExpected === false) return through('skipped');
      const done = (run: Run) => {
        clock.at(clock.now + load.delay, () => this.#answered(ticket, { micros: clock.now - sent, run }));
        through('run');
      };
      replica.submit({ tokens: call.tokens, context: call.context, done });
    };
    if (before && !before.verified) before.followers.push(start);
    else start();
  }

  #askDrafter(replica: Replica, { tokens, context }: Call, ticket: Ticket): void {
    const { clock, load } = this.#parts;
    const { drafterDelay: delay = load.delay } = load;
    const draft = { sent: clock.now, ticket };
    const of = this.#sequences;
    this.#draft = draft;
    this.#watch(draft.sent);
    const answered = (run: Run) => {
      if (this.#draft === draft) {
        this.#draft = undefined;
        this.#answered(ticket, { micros: clock.now - draft.sent, run });
      } else if (this.#sequences === of) this.#overdue = false;
    };
    const done = (run: Run) => clock.at(clock.now + delay, () => answered(run));
    clock.at(clock.now + delay, () => replica.submit({ tokens, context, done }));
  }

  /** Gives up a draft that takes too long, as gateway/src/clients/draft-stream.ts does. One timer serves all, as most are answered long before. */
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
        this.#answered(draft.ticket, undefined);
      }
    });
  }
}

function isOver({ until, of }: Wait): boolean {
  const isAnswered = ({ at }: Sent) => at !== undefined;
  return until === 'all' ? of.every(isAnswered) : of.some(isAnswered);
}

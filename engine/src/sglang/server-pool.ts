import { setTimeout as sleep } from 'node:timers/promises';
import { PtpError, toPtpError } from '@ptp/protocol/errors';
import { Backoff } from '@ptp/service-kit/backoff';
import type { Logger } from '@ptp/service-kit/log';
import type { SglangServer } from './server.ts';

export interface PoolTimes {
  /** Time in milliseconds during which a request is repeated before it fails. */
  readonly retryMs: number;
  /** Time in milliseconds without any answer after which the engine has died. */
  readonly deathMs: number;
  /** Pauses in milliseconds between the checks of a server that failed. They double from the first to the longest. */
  readonly firstPauseMs: number;
  readonly longestPauseMs: number;
  /** Time in milliseconds after which an idle server is checked. */
  readonly idleMs: number;
}

export interface PoolOptions {
  /** Servers that have passed the check. */
  readonly ready: readonly SglangServer[];
  /** Servers that have not passed it yet. */
  readonly failed: readonly SglangServer[];
  /** Throws if a server cannot be used. Called before a server's first use and after failures. */
  readonly check: (server: SglangServer) => Promise<void>;
  /** Called if no server has answered for `deathMs`. */
  readonly onDeath: (error: PtpError) => void;
  readonly logger?: Pick<Logger, 'info'> | undefined;
  readonly times?: Partial<PoolTimes> | undefined;
}

const TIMES: PoolTimes = { retryMs: 20_000, deathMs: 60_000, firstPauseMs: 250, longestPauseMs: 8000, idleMs: 5000 };
/** Number of wrong answers to a request after which it fails. More attempts would hardly help. */
const WRONG_LIMIT = 3;

/** A sequence's place at one of the servers. */
export interface Lease {
  /**
   * Calls the sequence's server, and repeats the call at a server that answers if it fails.
   *
   * @throws PtpError `unavailable` if no server answers in time, otherwise the error of the call
   */
  call<T>(use: (server: SglangServer) => Promise<T>): Promise<T>;
  end(): void;
}

interface Place {
  member: Member | undefined;
}

/** State of one server. */
interface Member {
  readonly server: SglangServer;
  readonly backoff: Backoff;
  /** False after a failure, until the server has passed a check. */
  isUsable: boolean;
  /** Requests in flight. */
  requests: number;
  /** Time of the last answer. */
  answered: number;
}

/**
 * Servers with the same model. A sequence stays at one server, whose radix cache has its keys and values, as long as the
 * server answers. If it does not, the sequence continues at another server, which computes them anew. Requests change
 * nothing, so repeating them is safe.
 */
export class ServerPool {
  readonly #options: PoolOptions;
  readonly #members: readonly Member[];
  readonly #places = new Set<Place>();
  readonly #times: PoolTimes;
  readonly #closing = new AbortController();
  #restored = Promise.withResolvers<void>();
  #lastFailure: PtpError | undefined;

  constructor(options: PoolOptions) {
    this.#options = options;
    this.#times = { ...TIMES, ...options.times };
    const answered = performance.now();
    const { firstPauseMs, longestPauseMs, idleMs } = this.#times;
    const member = (server: SglangServer, isUsable: boolean): Member => {
      return { server, backoff: new Backoff(firstPauseMs, longestPauseMs), isUsable, requests: 0, answered };
    };
    const failed = options.failed.map((server) => member(server, false));
    this.#members = [...options.ready.map((server) => member(server, true)), ...failed];
    for (const other of failed) void this.#restore(other);
    void this.#watchIdle(idleMs);
  }

  /** Number of servers that answer. */
  get usable(): number {
    return this.#members.filter(({ isUsable }) => isUsable).length;
  }

  /** Reserves a place for a sequence, at the server with the fewest sequences. */
  lease(): Lease {
    const place: Place = { member: undefined };
    this.#places.add(place);
    return { call: (use) => this.#call(place, use), end: () => this.#places.delete(place) };
  }

  async #call<T>(place: Place, use: (server: SglangServer) => Promise<T>): Promise<T> {
    const deadline = performance.now() + this.#times.retryMs;
    let wrong = 0;
    for (let attempt = 1; ; attempt++) {
      const member = await this.#memberFor(place, deadline);
      member.requests++;
      try {
        const result = await use(member.server);
        member.answered = performance.now();
        member.backoff.reset();
        return result;
      } catch (error) {
        const failure = toPtpError(error);
        if (this.#closing.signal.aborted) throw stopped();
        if (failure.code === 'failed_precondition') throw new PtpError('internal', failure.message, { cause: failure });
        this.#fail(member, failure);
        if (failure.code !== 'unavailable' && ++wrong >= WRONG_LIMIT) throw failure;
        // Other servers get the request even if the first one took until the deadline.
        if (performance.now() >= deadline && attempt >= this.#members.length) throw this.#noAnswer();
      } finally {
        member.requests--;
      }
    }
  }

  close(): void {
    this.#closing.abort();
    for (const { server } of this.#members) server.close();
    this.#restored.resolve();
  }

  /** Returns the sequence's server, or else another one that answers. Waits for one until `deadline`. */
  async #memberFor(place: Place, deadline: number): Promise<Member> {
    for (;;) {
      if (this.#closing.signal.aborted) throw stopped();
      if (!place.member?.isUsable) place.member = this.#leastUsed();
      if (place.member) return place.member;
      const left = deadline - performance.now();
      if (left <= 0) throw this.#noAnswer();
      const signal = this.#closing.signal;
      await Promise.race([this.#restored.promise, sleep(left, undefined, { ref: false, signal }).catch(() => {})]);
    }
  }

  /** Returns the usable server with the fewest sequences. */
  #leastUsed(): Member | undefined {
    const sequences = (member: Member) => [...this.#places].filter((place) => place.member === member).length;
    const usable = this.#members.filter(({ isUsable }) => isUsable);
    return usable.sort((a, b) => sequences(a) - sequences(b))[0];
  }

  /** Takes a server out of use until it passes a check. */
  #fail(member: Member, failure: PtpError): void {
    this.#lastFailure = failure;
    if (!member.isUsable) return;
    member.isUsable = false;
    this.#options.logger?.info({ err: failure, server: member.server.url }, 'an SGLang server has failed');
    if (this.usable === 0) this.#restored = Promise.withResolvers<void>();
    void this.#restore(member);
  }

  /** Checks a server, with growing pauses, until it can be used. */
  async #restore(member: Member): Promise<void> {
    const { signal } = this.#closing;
    while (!member.isUsable) {
      await sleep(member.backoff.next(), undefined, { ref: false, signal }).catch(() => {});
      if (signal.aborted) return;
      try {
        await this.#options.check(member.server);
        member.answered = performance.now();
        member.isUsable = true;
        this.#options.logger?.info({ server: member.server.url }, 'an SGLang server can be used');
        this.#restored.resolve();
      } catch (error) {
        const failure = toPtpError(error);
        this.#lastFailure = failure;
        if (failure.code === 'failed_precondition') {
          this.#options.logger?.info({ err: failure, server: member.server.url }, 'an SGLang server cannot be used');
        }
        const silence = performance.now() - Math.max(...this.#members.map(({ answered }) => answered));
        const isDead = this.usable === 0 && silence >= this.#times.deathMs && !signal.aborted;
        if (isDead) this.#options.onDeath(this.#noAnswer());
      }
    }
  }

  /** Checks servers that have no requests, so that a failure is noticed before the next request. */
  async #watchIdle(idleMs: number): Promise<void> {
    const { signal } = this.#closing;
    while (!signal.aborted) {
      await sleep(idleMs, undefined, { ref: false, signal }).catch(() => {});
      const idle = this.#members.filter(({ isUsable, requests, answered }) => {
        return isUsable && requests === 0 && performance.now() - answered >= idleMs;
      });
      for (const member of signal.aborted ? [] : idle) {
        const checked = member.server.info().then(() => {
          member.answered = performance.now();
        });
        await checked.catch((error: unknown) => this.#fail(member, toPtpError(error)));
      }
    }
  }

  /** The client sees this message, so the server's address is in the cause. */
  #noAnswer(): PtpError {
    return new PtpError('unavailable', 'no SGLang server answers', { cause: this.#lastFailure });
  }
}

function stopped(): PtpError {
  return new PtpError('unavailable', 'the engine has been stopped');
}

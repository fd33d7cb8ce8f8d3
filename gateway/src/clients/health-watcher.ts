import { setTimeout as sleep } from 'node:timers/promises';
import type { DescService } from '@bufbuild/protobuf';
import type { Connection } from '@ptp/protocol/client';
import { PtpError, toPtpError } from '@ptp/protocol/errors';
import { watchHealth } from '@ptp/protocol/health';
import type { Logger } from '@ptp/service-kit/log';

export interface HealthWatcherParts {
  /** For logs. */
  readonly address: string;
  readonly service: DescService;
  readonly logger: Logger;
  /** The connection to the service. */
  readonly channel: Connection;
  /** Opens a new connection after a loss. */
  readonly renew: () => Connection;
  /** Throws if the service must not be used. */
  readonly check: (signal: AbortSignal) => Promise<void>;
}

/** Watches the health of one service. Each time the service comes up, checks that it serves the same pair. */
export class HealthWatcher {
  readonly #controller = new AbortController();
  readonly #service: DescService;
  #usable = false;
  readonly #waiting = new Set<() => void>();

  constructor(parts: HealthWatcherParts) {
    this.#service = parts.service;
    void this.#follow(parts);
  }

  get usable(): boolean {
    return this.#usable;
  }

  /**
   * @throws PtpError `unavailable` when the service is not usable after `timeoutMs`; `AbortError` when the signal is
   * aborted earlier
   */
  async ready(timeoutMs: number, signal?: AbortSignal): Promise<void> {
    if (this.#usable) return;
    const usable = new Promise<void>((resolve) => this.#waiting.add(resolve));
    const timer = new AbortController();
    const ends = signal ? AbortSignal.any([timer.signal, signal]) : timer.signal;
    const late = sleep(timeoutMs, undefined, { signal: ends }).then(() => {
      throw new PtpError('unavailable', `${this.#service.typeName} is not ready after ${timeoutMs} ms`);
    });
    late.catch(() => {});
    await Promise.race([usable, late]).finally(() => timer.abort());
  }

  close(): void {
    this.#controller.abort();
    this.#usable = false;
  }

  async #follow({ address, service, logger, channel, renew, check }: HealthWatcherParts): Promise<void> {
    const { signal } = this.#controller;
    const peer = service.typeName;
    for await (const status of watchHealth(channel, renew, service, { signal })) {
      let usable = status === 'SERVING';
      if (usable) {
        const err = await attempt(check, signal);
        if (signal.aborted) return;
        usable = err === undefined;
        if (err) logger.error({ err, peer, address }, 'the service cannot be used');
      }
      if (usable !== this.#usable) logger.info({ peer, address, status }, usable ? 'connected' : 'lost');
      this.#usable = usable && !signal.aborted;
      if (!this.#usable) continue;
      for (const resolve of this.#waiting) resolve();
      this.#waiting.clear();
    }
  }
}

/** Repeats the check until it passes or rejects the service. @returns the error in the latter case */
async function attempt(
  check: (signal: AbortSignal) => Promise<void>,
  signal: AbortSignal,
): Promise<PtpError | undefined> {
  for (;;) {
    try {
      await check(signal);
      return undefined;
    } catch (error) {
      const failure = toPtpError(error);
      if (failure.code === 'failed_precondition' || signal.aborted) return failure;
      await sleep(CHECK_PAUSE_MS, undefined, { signal }).catch(() => {});
    }
  }
}

const CHECK_PAUSE_MS = 500;

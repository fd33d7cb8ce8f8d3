import { setTimeout as sleep } from 'node:timers/promises';
import type { DescService } from '@bufbuild/protobuf';
import { type Connection, clientOn, openChannel, type ServiceClient } from '@ptp/protocol/client';
import type { Tls } from '@ptp/protocol/credentials';
import { type PtpError, toPtpError } from '@ptp/protocol/errors';
import { watchHealth } from '@ptp/protocol/health';
import { Backoff } from '@ptp/service-kit/backoff';
import type { Logger } from '@ptp/service-kit/log';
import { OutageLog } from '@ptp/service-kit/outage-log';
import type { Endpoint } from './name-watcher.ts';
import { outageCause } from './outage-cause.ts';

/** Backoff in milliseconds during which a replica that failed is avoided if another one is usable. */
const FIRST_PAUSE_MS = 250;
const LONGEST_PAUSE_MS = 8000;
/** Pause in milliseconds before the repetition of a check that could not be completed. */
const CHECK_PAUSE_MS = 500;

/** Settings that all replicas of a service share. */
export interface ReplicaOptions<S extends DescService> {
  readonly service: S;
  readonly logger: Logger;
  readonly tls?: Tls | undefined;
  /** Maximum size of a message from the service in bytes. Default: 64 MiB. */
  readonly maxReceiveBytes?: number | undefined;
  /** Throws if the instance must not be used. */
  readonly check: (client: ServiceClient<S>, signal: AbortSignal) => Promise<void>;
}

/** Lease of a replica by one stream. */
export interface Lease<S extends DescService> {
  readonly address: string;
  readonly client: ServiceClient<S>;
  /** Ends the lease. `failed` says whether the replica was lost. Later calls have no effect. */
  readonly leave: (failed: boolean) => void;
}

/** One instance of a service. Watches its health and, each time the service comes up, checks that it may be used. */
export class Replica<S extends DescService> {
  readonly #endpoint: Endpoint;
  readonly #options: ReplicaOptions<S>;
  readonly #closing = new AbortController();
  readonly #backoff = new Backoff(FIRST_PAUSE_MS, LONGEST_PAUSE_MS);
  #client: ServiceClient<S> | undefined;
  #avoidUntil = 0;
  #retired = false;
  usable = false;
  /** Number of streams of this gateway. */
  streams = 0;

  /** @param onUsable function that is called each time the replica becomes usable */
  constructor(endpoint: Endpoint, options: ReplicaOptions<S>, onUsable: () => void) {
    this.#endpoint = endpoint;
    this.#options = options;
    void this.#watch(onUsable);
  }

  /** True if no stream has failed here recently. */
  get trusted(): boolean {
    return this.#avoidUntil <= performance.now();
  }

  /** Leases the replica, which must be usable, to a stream. */
  lease(): Lease<S> {
    this.streams++;
    let left = false;
    const leave = (failed: boolean) => {
      if (left) return;
      left = true;
      this.streams--;
      if (failed) this.#avoidUntil = performance.now() + this.#backoff.next();
      else this.#backoff.reset();
      if (this.#retired && this.streams === 0) this.close();
    };
    return { address: this.#endpoint.target, client: this.#client as ServiceClient<S>, leave };
  }

  /** Closes the connection once the last stream has ended. The replica must not be leased any more. */
  retire(): void {
    this.#retired = true;
    if (this.streams === 0) this.close();
  }

  /** Closes the connection once the streams on it have ended. */
  close(): void {
    this.#closing.abort();
    this.usable = false;
    this.#client?.close();
  }

  /**
   * Opens a connection for both the streams and the health watch, so that the watch notices when the connection is
   * lost.
   */
  #connect(): Connection {
    const { service, tls, maxReceiveBytes } = this.#options;
    const { target, name } = this.#endpoint;
    const connection = openChannel(target, { tls, apart: true, serverName: name, maxReceiveBytes });
    this.#client?.close();
    this.#client = clientOn(connection, service);
    return connection;
  }

  async #watch(onUsable: () => void): Promise<void> {
    const { service, logger } = this.#options;
    const { signal } = this.#closing;
    const [peer, address] = [service.typeName, this.#endpoint.target];
    const outages = new OutageLog(logger, 'the service cannot be reached');
    const onUnreachable = (error: unknown) => outages.report({ peer, address, ...outageCause(error) });
    for await (const status of watchHealth(() => this.#connect(), service, { signal, onUnreachable })) {
      if (status === 'SERVING') outages.end();
      const err = status === 'SERVING' ? await this.#rejection(signal) : undefined;
      if (signal.aborted) return;
      if (err) logger.error({ err, peer, address }, 'the service cannot be used');
      const usable = status === 'SERVING' && !err;
      if (usable !== this.usable) logger.info({ peer, address, status }, usable ? 'connected' : 'lost');
      this.usable = usable;
      if (usable) onUsable();
    }
  }

  /** Repeats the check until it passes or rejects the service. Returns the error in the latter case. */
  async #rejection(signal: AbortSignal): Promise<PtpError | undefined> {
    for (;;) {
      try {
        await this.#options.check(this.#client as ServiceClient<S>, signal);
        return undefined;
      } catch (error) {
        const failure = toPtpError(error);
        if (failure.code === 'failed_precondition' || signal.aborted) return failure;
        await sleep(CHECK_PAUSE_MS, undefined, { signal }).catch(() => {});
      }
    }
  }
}

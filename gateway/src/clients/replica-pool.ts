import type { DescService } from '@bufbuild/protobuf';
import { clientOn, openChannel, type ServiceClient } from '@ptp/protocol/client';
import type { Tls } from '@ptp/protocol/credentials';
import { toPtpError } from '@ptp/protocol/errors';
import { Backoff } from '@ptp/service-kit/backoff';
import type { Logger } from '@ptp/service-kit/log';
import { HealthWatcher } from './health-watcher.ts';

/** Backoff for which a failed replica is avoided while another one is usable, milliseconds. */
const FIRST_PAUSE_MS = 250;
const LONGEST_PAUSE_MS = 8000;

/** One instance of a service. */
export interface Replica<S extends DescService> {
  readonly address: string;
  readonly client: ServiceClient<S>;
}

/** Lease of a replica by one stream. */
export interface Lease<S extends DescService> extends Replica<S> {
  /** Ends the lease; `failed` if the replica was lost. Further calls do nothing. */
  readonly leave: (failed: boolean) => void;
}

interface Watched<S extends DescService> extends Replica<S> {
  /** On the connection in use. */
  client: ServiceClient<S>;
  readonly peer: HealthWatcher;
  streams: number;
  readonly backoff: Backoff;
  avoidUntil: number;
}

/** Instances of one service. A stream goes to the usable one with the fewest streams of this gateway. */
export class ReplicaPool<S extends DescService> {
  readonly #replicas: readonly Watched<S>[];

  /** @param check throws if an instance must not be used */
  constructor(
    service: S,
    addresses: readonly string[],
    logger: Logger,
    check: (client: ServiceClient<S>, signal: AbortSignal) => Promise<void>,
    tls?: Tls,
  ) {
    this.#replicas = addresses.map((address) => {
      // calls and health watch share a connection, so that its loss is noticed
      const open = () => openChannel(address, { tls, apart: true });
      const channel = open();
      const renew = () => {
        const fresh = open();
        replica.client.close();
        replica.client = clientOn(fresh, service);
        return fresh;
      };
      const replica: Watched<S> = {
        address,
        client: clientOn(channel, service),
        peer: new HealthWatcher({
          address,
          service,
          logger,
          channel,
          renew,
          check: (signal) => check(replica.client, signal),
        }),
        streams: 0,
        backoff: new Backoff(FIRST_PAUSE_MS, LONGEST_PAUSE_MS),
        avoidUntil: 0,
      };
      return replica;
    });
  }

  get usable(): boolean {
    return this.#replicas.some(({ peer }) => peer.usable);
  }

  /** @throws PtpError `unavailable` when none is usable after `timeoutMs` */
  async ready(timeoutMs: number, signal?: AbortSignal): Promise<void> {
    await Promise.any(this.#replicas.map(({ peer }) => peer.ready(timeoutMs, signal))).catch(
      (error: AggregateError) => {
        throw toPtpError(error.errors[0]);
      },
    );
  }

  /** Undefined while none is usable. */
  lease(): Lease<S> | undefined {
    const usable = this.#replicas.filter(({ peer }) => peer.usable);
    const now = performance.now();
    const trusted = usable.filter(({ avoidUntil }) => avoidUntil <= now);
    const [chosen] = (trusted.length > 0 ? trusted : usable).toSorted((a, b) => a.streams - b.streams);
    if (!chosen) return undefined;
    chosen.streams++;
    let left = false;
    const leave = (failed: boolean) => {
      if (left) return;
      left = true;
      chosen.streams--;
      if (failed) chosen.avoidUntil = performance.now() + chosen.backoff.next();
      else chosen.backoff.reset();
    };
    return { address: chosen.address, client: chosen.client, leave };
  }

  /** Closes the connections when the streams on them have ended. */
  close(): void {
    for (const { peer, client } of this.#replicas) {
      peer.close();
      client.close();
    }
  }
}

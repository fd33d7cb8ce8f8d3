import { EventEmitter, once } from 'node:events';
import type { DescService } from '@bufbuild/protobuf';
import { PtpError } from '@ptp/protocol/errors';
import { OutageLog } from '@ptp/service-kit/outage-log';
import { type Endpoint, type Resolve, watchName } from './name-watcher.ts';
import { outageCause } from './outage-cause.ts';
import { type Lease, Replica, type ReplicaOptions } from './replica.ts';

export interface PoolOptions<S extends DescService> extends ReplicaOptions<S> {
  readonly resolve?: Resolve | undefined;
  readonly resolveMs?: number | undefined;
}

/** Instances of one service. A stream goes to the usable instance with the fewest streams of this gateway. */
export class ReplicaPool<S extends DescService> {
  readonly #options: PoolOptions<S>;
  /** Instances by configured address, then by their own target. */
  readonly #replicas = new Map<string, Map<string, Replica<S>>>();
  readonly #closing = new AbortController();
  /** Emits `usable` each time a replica becomes usable. Any number of streams may wait for it. */
  readonly #events = new EventEmitter().setMaxListeners(0);

  /** @param addresses configured addresses. A name stands for one instance per IP address */
  constructor(addresses: readonly string[], options: PoolOptions<S>) {
    this.#options = options;
    for (const address of new Set(addresses)) this.#watch(address);
  }

  get usable(): boolean {
    return this.#all().some(({ usable }) => usable);
  }

  /**
   * Waits for a usable replica.
   *
   * @throws PtpError `unavailable` if no replica is usable within `timeoutMs`, or the signal's reason if the signal is
   *   aborted earlier
   */
  async ready(timeoutMs: number, signal = new AbortController().signal): Promise<void> {
    if (this.usable) return;
    const ends = AbortSignal.any([signal, AbortSignal.timeout(Math.ceil(timeoutMs))]);
    await once(this.#events, 'usable', { signal: ends }).catch(() => {
      signal.throwIfAborted();
      throw new PtpError('unavailable', `${this.#options.service.typeName} was not ready within ${timeoutMs} ms`);
    });
  }

  /** Leases a replica to a stream. Returns undefined while no replica is usable. */
  lease(): Lease<S> | undefined {
    const usable = this.#all().filter((replica) => replica.usable);
    const trusted = usable.filter((replica) => replica.trusted);
    const [chosen] = (trusted.length > 0 ? trusted : usable).toSorted((a, b) => a.streams - b.streams);
    return chosen?.lease();
  }

  close(): void {
    this.#closing.abort();
    for (const replica of this.#all()) replica.close();
  }

  #all(): Replica<S>[] {
    return [...this.#replicas.values()].flatMap((each) => [...each.values()]);
  }

  #watch(address: string): void {
    const { service, logger, resolve, resolveMs } = this.#options;
    const replicas = new Map<string, Replica<S>>();
    this.#replicas.set(address, replicas);
    const outages = new OutageLog(logger, 'the service cannot be found');
    void watchName(address, {
      resolve,
      resolveMs,
      signal: this.#closing.signal,
      onChange: (endpoints) => this.#update(replicas, endpoints),
      onSuccess: () => outages.end(),
      onFailure: (error) => outages.report({ peer: service.typeName, address, ...outageCause(error) }),
    });
  }

  /** Adds and removes instances. The streams of a removed instance continue there until they end. */
  #update(replicas: Map<string, Replica<S>>, endpoints: readonly Endpoint[]): void {
    const targets = new Set(endpoints.map(({ target }) => target));
    for (const [target, replica] of replicas) {
      if (targets.has(target)) continue;
      replicas.delete(target);
      replica.retire();
    }
    for (const endpoint of endpoints) {
      if (replicas.has(endpoint.target)) continue;
      replicas.set(endpoint.target, new Replica(endpoint, this.#options, () => this.#events.emit('usable')));
    }
  }
}

import { EventEmitter, once } from 'node:events';
import type { DescService } from '@bufbuild/protobuf';
import { PtpError } from '@ptp/protocol/errors';
import { type Lease, Replica, type ReplicaOptions } from './replica.ts';

/** Instances of one service. A stream goes to the usable instance with the fewest streams of this gateway. */
export class ReplicaPool<S extends DescService> {
  readonly #typeName: string;
  readonly #replicas: readonly Replica<S>[];
  /** Emits `usable` each time a replica becomes usable. Any number of streams may wait for it. */
  readonly #events = new EventEmitter().setMaxListeners(0);

  constructor(addresses: readonly string[], options: ReplicaOptions<S>) {
    this.#typeName = options.service.typeName;
    this.#replicas = addresses.map((each) => new Replica(each, options, () => this.#events.emit('usable')));
  }

  get usable(): boolean {
    return this.#replicas.some(({ usable }) => usable);
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
      throw new PtpError('unavailable', `${this.#typeName} was not ready within ${timeoutMs} ms`);
    });
  }

  /** Leases a replica to a stream. Returns undefined while no replica is usable. */
  lease(): Lease<S> | undefined {
    const usable = this.#replicas.filter((replica) => replica.usable);
    const trusted = usable.filter((replica) => replica.trusted);
    const [chosen] = (trusted.length > 0 ? trusted : usable).toSorted((a, b) => a.streams - b.streams);
    return chosen?.lease();
  }

  close(): void {
    for (const replica of this.#replicas) replica.close();
  }
}

import { setTimeout as sleep } from 'node:timers/promises';
import type { DescService } from '@bufbuild/protobuf';
import type { Client } from '@grpc/grpc-js';
import { service as healthService } from 'grpc-health-check';
import { type CallableMethod, type CallOptions, callServerStreaming, callUnary } from './calls.ts';
import { openChannel } from './client.ts';
import type { Tls } from './credentials.ts';

/**
 * Answers of the standard health service. SERVICE_UNKNOWN and UNKNOWN mean that the server does not know the service.
 */
export type ServingStatus = 'SERVING' | 'NOT_SERVING' | 'SERVICE_UNKNOWN' | 'UNKNOWN';

type HealthMethod = CallableMethod<{ service: string }, { status: ServingStatus }>;

const methods = healthService as unknown as { Check: HealthMethod; Watch: HealthMethod };

/**
 * Queries the health of a server, or of one of its services, once.
 *
 * @throws PtpError `unavailable` if the server cannot be reached, `not_found` if it doesn't know the service
 */
export async function checkHealth(
  address: string,
  service?: DescService,
  options: CallOptions = { deadlineMs: 2_000 },
  tls?: Tls,
): Promise<ServingStatus> {
  const channel = openChannel(address, { apart: true, tls });
  try {
    const { status } = await callUnary(channel, methods.Check, { service: service?.typeName ?? '' }, options);
    return status;
  } finally {
    channel.close();
  }
}

export interface WatchOptions {
  readonly signal: AbortSignal;
  /** Called with the error each time no connection can be established. */
  readonly onUnreachable?: (error: unknown) => void;
}

/**
 * Watches the health of a server until the signal is aborted. Yields the status each time it changes. The status is
 * `UNREACHABLE` while there is no connection.
 *
 * @param open function that opens the connection, and a new connection each time the last one is lost. This is
 *   necessary because grpc-js (1.14) keeps using a connection that TLS has closed after an alert from the peer, and
 *   calls on such a connection never end.
 */
export async function* watchHealth(
  open: () => Client,
  service: DescService | undefined,
  { signal, onUnreachable = () => {} }: WatchOptions,
): AsyncGenerator<ServingStatus | 'UNREACHABLE', void, undefined> {
  let last: string | undefined;
  let current = open();
  while (!signal.aborted) {
    let connected = false;
    try {
      const request = { service: service?.typeName ?? '' };
      for await (const { status } of callServerStreaming(current, methods.Watch, request, { signal })) {
        connected = true;
        if (status !== last) yield status;
        last = status;
      }
    } catch (error) {
      if (signal.aborted) return;
      if (!connected) onUnreachable(error);
    }
    // grpc-js itself retries a connection that was never established
    if (connected) current = open();
    if (last !== 'UNREACHABLE') yield 'UNREACHABLE';
    last = 'UNREACHABLE';
    await sleep(200, undefined, { signal }).catch(() => {});
  }
}

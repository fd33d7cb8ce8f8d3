import { setTimeout as sleep } from 'node:timers/promises';
import type { DescService } from '@bufbuild/protobuf';
import type { Client } from '@grpc/grpc-js';
import { service as healthService } from 'grpc-health-check';
import { type CallableMethod, type CallOptions, callServerStreaming, callUnary } from './calls.ts';
import { openChannel } from './client.ts';
import type { Tls } from './credentials.ts';

/** What the standard health service says; SERVICE_UNKNOWN and UNKNOWN mean that the server doesn't know the service. */
export type ServingStatus = 'SERVING' | 'NOT_SERVING' | 'SERVICE_UNKNOWN' | 'UNKNOWN';

type HealthMethod = CallableMethod<{ service: string }, { status: ServingStatus }>;

const methods = healthService as unknown as { Check: HealthMethod; Watch: HealthMethod };

/**
 * Asks once how a server, or one of its services, is.
 *
 * @throws PtpError `unavailable` if it cannot be reached, `not_found` if it doesn't know the service
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

/**
 * Follows how a server is until the signal is aborted: yields at each change, and `UNREACHABLE` while there is no
 * connection.
 *
 * @param channel the connection to ask on
 * @param renew gives a fresh one each time that it is lost: grpc-js (1.14) goes on using a connection that TLS has given up (an alert from
 *   the other side), on which calls then wait for ever
 */
export async function* watchHealth(
  channel: Client,
  renew: () => Client,
  service: DescService | undefined,
  { signal }: { readonly signal: AbortSignal },
): AsyncGenerator<ServingStatus | 'UNREACHABLE', void, undefined> {
  let last: string | undefined;
  let current = channel;
  while (!signal.aborted) {
    let connected = false;
    try {
      const request = { service: service?.typeName ?? '' };
      for await (const { status } of callServerStreaming(current, methods.Watch, request, { signal })) {
        connected = true;
        if (status !== last) yield status;
        last = status;
      }
    } catch {
      if (signal.aborted) return;
    }
    // one that has not come about yet is tried again by grpc-js itself
    if (connected) current = renew();
    if (last !== 'UNREACHABLE') yield 'UNREACHABLE';
    last = 'UNREACHABLE';
    await sleep(200, undefined, { signal }).catch(() => {});
  }
}

import { setTimeout as sleep } from 'node:timers/promises';
import type { DescService } from '@bufbuild/protobuf';
import type { Client } from '@grpc/grpc-js';
import { service as healthService } from 'grpc-health-check';
import { type CallableMethod, type CallOptions, callServerStreaming, callUnary } from './calls.ts';
import { openChannel } from './client.ts';
import type { Tls } from './tls.ts';

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
 */
export async function* watchHealth(
  address: string,
  service: DescService | undefined,
  { signal, tls }: { readonly signal: AbortSignal; readonly tls?: Tls | undefined },
): AsyncGenerator<ServingStatus | 'UNREACHABLE', void, undefined> {
  const channel = openChannel(address, { tls });
  let last: string | undefined;
  try {
    for await (const status of statuses(channel, service?.typeName ?? '', signal)) {
      if (status !== last) yield status;
      last = status;
    }
  } finally {
    channel.close();
  }
}

async function* statuses(channel: Client, service: string, signal: AbortSignal) {
  while (!signal.aborted) {
    try {
      for await (const { status } of callServerStreaming(channel, methods.Watch, { service }, { signal })) yield status;
    } catch {
      if (signal.aborted) return;
    }
    yield 'UNREACHABLE' as const;
    await sleep(200, undefined, { signal }).catch(() => {});
  }
}

import { setTimeout as sleep } from 'node:timers/promises';
import type { DescMethod, DescService } from '@bufbuild/protobuf';
import { Server, type ServerWritableStream, type UntypedServiceImplementation } from '@grpc/grpc-js';
import { HealthImplementation } from 'grpc-health-check';
import type { Logger } from 'pino';
import type { Tls } from './credentials.ts';
import { PtpError } from './errors.ts';
import { ActiveCalls, grpcHandler, type Handler, type Implementation } from './handlers.ts';
import { type Listening, listen } from './listen.ts';
import { identity, serviceDefinition } from './methods.ts';
import { addReflection } from './reflection.ts';
import { toStatus } from './status.ts';

export type { CallContext, Implementation } from './handlers.ts';

/** A service with its handlers; created by {@link implement}. */
export interface ImplementedService {
  readonly service: DescService;
  readonly implementation: Readonly<Record<string, unknown>>;
}

/** Pairs a service with its handlers. The compiler checks that the service and the handlers match. */
export function implement<S extends DescService>(service: S, implementation: Implementation<S>): ImplementedService {
  return { service, implementation };
}

/** Options of a server. */
export interface ServeOptions {
  /** `host:port` (port 0: any free port) or `unix:/absolute/path`. */
  readonly address: string;
  /** Name of the setting that holds the address, for errors: `PTP_LISTEN`. */
  readonly setting?: string;
  readonly services: readonly ImplementedService[];
  readonly logger: Logger;
  /** TLS credentials. Ignored for unix sockets. */
  readonly tls?: Tls | undefined;
  /** Initial health. Default: true (SERVING). */
  readonly serving?: boolean;
  /** Maximum size in bytes of a received or sent message. Default: 16 MiB. */
  readonly maxMessageBytes?: number;
  /** Maximum number of concurrent calls on one connection. Default: 1024. Further calls wait in the client. */
  readonly maxConcurrentStreams?: number;
  /** Maximum number of streams that a connection may reset in a burst. Default: 20,000. More close the connection. */
  readonly resetBurst?: number;
  /**
   * Maximum time in milliseconds that a client may leave a stream unread once its buffers are full. Default: 30,000.
   */
  readonly stallMillis?: number;
}

/** A running server. */
export interface RunningServer {
  /** Listening address with the actual port. */
  readonly address: string;
  /** Sets the health of one service, or of the server and all its services. */
  setServing(serving: boolean, service?: DescService): void;
  /** Number of calls in progress, not counting health and reflection calls. */
  readonly activeCalls: () => number;
  /**
   * Drains and stops: health becomes NOT_SERVING, new calls are rejected, and calls in progress get `graceMs` to finish
   * before they are aborted with `unavailable`. Calling it again waits for the first call.
   */
  close(graceMs: number): Promise<void>;
}

/** Time in milliseconds that a handler has to return after its signal is aborted. */
const ABORT_GRACE_MS = 500;

/**
 * Serves gRPC services together with the standard health and reflection services.
 *
 * @throws PtpError `failed_precondition` if the address cannot be bound
 */
export async function serve(options: ServeOptions): Promise<RunningServer> {
  const { logger, maxMessageBytes = 16 * 2 ** 20, maxConcurrentStreams = 1024 } = options;
  const { stallMillis = 30_000, resetBurst = 20_000 } = options;
  const server = new Server({
    'grpc.max_receive_message_length': maxMessageBytes,
    'grpc.max_send_message_length': maxMessageBytes,
    'grpc.max_concurrent_streams': maxConcurrentStreams,
    // These pings detect clients that vanished without closing their streams, which hold caches.
    'grpc.keepalive_time_ms': 20_000,
    'grpc.keepalive_timeout_ms': 10_000,
  });
  limitResets(server, resetBurst);
  const calls = new ActiveCalls();
  for (const { service, implementation } of options.services) {
    const definitions = Object.entries(serviceDefinition(service)).map(([name, definition]) => {
      return [name, { ...definition, responseSerialize: identity }] as const;
    });
    const handlers = service.methods.map((method) => {
      return [
        method.localName,
        grpcHandler(method, implementation[method.localName] as Handler<DescMethod>, { calls, logger, stallMillis }),
      ];
    });
    server.addService(Object.fromEntries(definitions), Object.fromEntries(handlers));
  }
  const services = options.services.map(({ service }) => service);
  const health = addHealth(server, services);
  addReflection(server, services);
  health.setServing(options.serving ?? true);

  const listening = await listen(server, options.address, options.setting, options.tls);
  const { address } = listening;
  logger.info({ address }, 'listening');
  let closing: Promise<void> | undefined;
  return {
    address,
    setServing: health.setServing,
    activeCalls: () => calls.size,
    close(graceMs) {
      closing ??= drain(server, listening, calls, health, graceMs);
      return closing;
    },
  };
}

/** Fraction of `resetBurst` that a connection regains each second. */
const RESETS_REGAINED = 0.05;

/**
 * Limits how often streams of one connection may be reset. Node's limit, 1,000 and then 33 per second, lets one client
 * that cancels its calls end the calls of all clients that share a proxy's connection. grpc-js has no option for it.
 */
function limitResets(server: Server, streamResetBurst: number): void {
  const { commonServerOptions } = server as unknown as { readonly commonServerOptions: object };
  Object.assign(commonServerOptions, { streamResetBurst, streamResetRate: streamResetBurst * RESETS_REGAINED });
}

async function drain(
  server: Server,
  listening: Listening,
  calls: ActiveCalls,
  health: Health,
  graceMs: number,
): Promise<void> {
  health.setServing(false);
  health.close();
  const closed = listening.close();
  server.tryShutdown(() => {});
  const timers = new AbortController();
  const closedWithin = (ms: number) =>
    Promise.race([closed, sleep(ms, undefined, { signal: timers.signal }).catch(() => {})]);
  await closedWithin(graceMs);
  calls.abort(new PtpError('unavailable', 'the server is shutting down'));
  await closedWithin(ABORT_GRACE_MS);
  timers.abort();
  server.forceShutdown();
  listening.destroy();
  await closed;
}

interface Health {
  setServing(serving: boolean, service?: DescService): void;
  /** Ends all health watches, which would otherwise run forever. */
  close(): void;
}

function addHealth(server: Server, services: readonly DescService[]): Health {
  const health = new HealthImplementation();
  const watches = new Set<ServerWritableStream<unknown, unknown>>();
  health.addToServer({
    addService(definition, implementation) {
      const watch = (call: ServerWritableStream<unknown, unknown>) => {
        watches.add(call);
        call.on('cancelled', () => watches.delete(call));
        implementation.watch?.(call as never, undefined as never);
      };
      server.addService(definition, { ...implementation, watch } as UntypedServiceImplementation);
    },
  });
  return {
    setServing(serving, service) {
      const names = service ? [service.typeName] : ['', ...services.map(({ typeName }) => typeName)];
      for (const name of names) health.setStatus(name, serving ? 'SERVING' : 'NOT_SERVING');
    },
    close() {
      const status = toStatus(new PtpError('unavailable', 'the server is shutting down'));
      for (const call of watches) call.emit('error', status);
    },
  };
}

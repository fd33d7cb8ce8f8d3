import { setTimeout as sleep } from 'node:timers/promises';
import type { DescMethod, DescService } from '@bufbuild/protobuf';
import { Server, type ServerWritableStream, type UntypedServiceImplementation } from '@grpc/grpc-js';
import { HealthImplementation } from 'grpc-health-check';
import type { Logger } from 'pino';
import { ActiveCalls } from './call-context.ts';
import type { Tls } from './credentials.ts';
import { PtpError } from './errors.ts';
import { grpcHandler, type Handler, type Implementation } from './handlers.ts';
import { listen } from './listen.ts';
import { identity, serviceDefinition } from './methods.ts';
import { addReflection } from './reflection.ts';
import { toStatus } from './status.ts';

/** A service with its handlers; made by {@link implement}. */
export interface ImplementedService {
  readonly service: DescService;
  readonly implementation: Readonly<Record<string, unknown>>;
}

/** Pairs a service with its handlers, which the compiler checks against it. */
export function implement<S extends DescService>(service: S, implementation: Implementation<S>): ImplementedService {
  return { service, implementation };
}

/** How a server is to run. */
export interface ServeOptions {
  /** `host:port`, port 0 for a free one, or `unix:/absolute/path`. */
  readonly address: string;
  /** Where the address comes from, named in errors: `PTP_VERIFIER_ADDRESS`. */
  readonly setting?: string;
  readonly services: readonly ImplementedService[];
  readonly logger: Logger;
  /** Not used with sockets in the file system. */
  readonly tls?: Tls | undefined;
  /** Whether health says SERVING from the start; true unless given. */
  readonly serving?: boolean;
  /** Largest message to take or send, bytes; 16 MiB unless given. */
  readonly maxMessageBytes?: number;
  /** Most calls at once on one connection; 1024 unless given. Further ones wait at the client. */
  readonly maxConcurrentStreams?: number;
  /** How long a client may leave a stream unread, once buffers are full; 30 s unless given. */
  readonly stallMillis?: number;
}

/** A running server. */
export interface RunningServer {
  /** Where it listens, with the port in use. */
  readonly address: string;
  /** Sets what the standard health service says: of one service, or of all and the server as a whole. */
  setServing(serving: boolean, service?: DescService): void;
  /** Calls in progress, health and reflection aside. */
  readonly activeCalls: () => number;
  /**
   * Drains: health says NOT_SERVING, new calls are refused, calls in progress may go on for `graceMs`; what is left then
   * is aborted with `unavailable`. A second call waits for the first.
   */
  close(graceMs: number): Promise<void>;
}

/** How long a handler may take to end after its signal was aborted. */
const abortGraceMs = 500;

/**
 * Serves gRPC services together with the standard health and reflection services.
 *
 * @throws PtpError `failed_precondition` if the address cannot be had
 */
export async function serve(options: ServeOptions): Promise<RunningServer> {
  const { logger, maxMessageBytes = 16 * 2 ** 20, maxConcurrentStreams = 1024 } = options;
  const { stallMillis = 30_000 } = options;
  const server = new Server({
    'grpc.max_receive_message_length': maxMessageBytes,
    'grpc.max_send_message_length': maxMessageBytes,
    'grpc.max_concurrent_streams': maxConcurrentStreams,
    // finds clients that are gone without a word: their streams hold caches
    'grpc.keepalive_time_ms': 20_000,
    'grpc.keepalive_timeout_ms': 10_000,
  });
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

  const address = await listen(server, options.address, options.setting, options.tls);
  logger.info({ address }, 'listening');
  let closing: Promise<void> | undefined;
  return {
    address,
    setServing: health.setServing,
    activeCalls: () => calls.size,
    close(graceMs) {
      closing ??= drain(server, calls, health, graceMs);
      return closing;
    },
  };
}

async function drain(server: Server, calls: ActiveCalls, health: Health, graceMs: number): Promise<void> {
  health.setServing(false);
  health.close();
  const closed = new Promise<void>((resolve) => server.tryShutdown(() => resolve()));
  const timers = new AbortController();
  const within = (ms: number) =>
    Promise.race([closed, sleep(ms, undefined, { signal: timers.signal }).catch(() => {})]);
  await within(graceMs);
  calls.abort(new PtpError('unavailable', 'the server is shutting down'));
  await within(abortGraceMs);
  timers.abort();
  server.forceShutdown();
  await closed;
}

interface Health {
  setServing(serving: boolean, service?: DescService): void;
  /** Ends the watches, which would never end by themselves. */
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

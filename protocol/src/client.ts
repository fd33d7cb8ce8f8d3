/**
 * gRPC for our services: protobuf-es messages over grpc-js. This layer is hand-written because each decoding step waits
 * for a round trip. On one machine, a round trip takes 65 us on a long-lived bidirectional stream (51 us over a unix
 * socket) and 400 us as a unary call. The layer preserves the speed of streams (message-queue.ts delivers a message in
 * the event-loop turn in which it arrives) and adds typed methods and a single error class.
 */
import { promisify } from 'node:util';
import type { DescMethod, DescService } from '@bufbuild/protobuf';
import { type ChannelOptions, Client } from '@grpc/grpc-js';
import {
  type BidiCall,
  type BidiOptions,
  type CallOptions,
  callBidi,
  callServerStreaming,
  callUnary,
  type ServerStream,
} from './calls.ts';
import { clientCredentials, type Tls } from './credentials.ts';
import { PtpError } from './errors.ts';
import { methodDefinition, type RequestInit, type Response } from './methods.ts';

export type { BidiCall, CallOptions, ServerStream } from './calls.ts';
export type { RequestInit, Response } from './methods.ts';

/** Type of the function that calls a method. It depends on whether the method is unary or streaming. */
export type Call<M extends DescMethod> = M['methodKind'] extends 'unary'
  ? (request: RequestInit<M>, options?: CallOptions) => Promise<Response<M>>
  : M['methodKind'] extends 'server_streaming'
    ? (request: RequestInit<M>, options?: CallOptions) => ServerStream<Response<M>>
    : M['methodKind'] extends 'bidi_streaming'
      ? (options?: BidiOptions<RequestInit<M>>) => BidiCall<RequestInit<M>, Response<M>>
      : never;

/** Methods of a service, keyed by their camelCase names, on one shared connection. */
export type ServiceClient<S extends DescService> = { readonly [K in keyof S['method']]: Call<S['method'][K]> } & {
  /**
   * Waits for a connection.
   *
   * @throws PtpError `unavailable` if no connection is established within `timeoutMs`
   */
  waitForReady(timeoutMs: number): Promise<void>;
  /** Closes the connection once the calls in progress have ended. */
  close(): void;
};

export interface ConnectOptions {
  /** Maximum size of a received message in bytes. Default: 64 MiB. */
  readonly maxReceiveBytes?: number | undefined;
  /**
   * Opens a separate connection. By default, all clients of an address in this process share one connection, so they
   * all notice at the same time when the service comes back.
   */
  readonly apart?: boolean;
  /** Name in the server's certificate. Default: the host of the address. */
  readonly serverName?: string | undefined;
  /** TLS credentials. Ignored for unix sockets. */
  readonly tls?: Tls | undefined;
}

/**
 * Creates a client for a service. The client connects at its first call, reconnects automatically (waiting at most 1 s
 * between attempts), and balances calls over all addresses of a DNS name.
 *
 * @param address `host:port` or `unix:/absolute/path`
 */
export function connect<S extends DescService>(
  service: S,
  address: string,
  options: ConnectOptions = {},
): ServiceClient<S> {
  return clientOn(openChannel(address, options), service);
}

/** A connection to a server that reconnects automatically. */
export type Connection = Client;

/**
 * Creates a client on an existing connection. Several clients may share a connection; closing any of them closes it.
 */
export function clientOn<S extends DescService>(channel: Client, service: S): ServiceClient<S> {
  const methods = service.methods.map((method) => [method.localName, caller(channel, method)]);
  return Object.assign(Object.fromEntries(methods), {
    waitForReady: (timeoutMs: number) => waitForReady(channel, timeoutMs),
    close: () => channel.close(),
  });
}

/** Opens a connection with the options common to all our clients. */
export function openChannel(address: string, options: ConnectOptions = {}): Client {
  const { maxReceiveBytes = 64 * 2 ** 20, apart = false, serverName, tls } = options;
  return new Client(address, clientCredentials(address, tls), {
    'grpc.max_receive_message_length': maxReceiveBytes,
    'grpc.max_send_message_length': -1,
    // detects, within 6 s, a peer that vanished without closing the connection
    'grpc.keepalive_time_ms': 3_000,
    'grpc.keepalive_timeout_ms': 3_000,
    'grpc.initial_reconnect_backoff_ms': 100,
    'grpc.max_reconnect_backoff_ms': 1_000,
    'grpc.dns_min_time_between_resolutions_ms': 1_000,
    'grpc.service_config': roundRobin,
    'grpc.service_config_disable_resolution': 1,
    'grpc.use_local_subchannel_pool': apart ? 1 : 0,
    ...(serverName !== undefined && {
      'grpc.ssl_target_name_override': serverName,
      'grpc.default_authority': serverName,
    }),
    // Services talk to each other directly: a configured proxy is meant for outbound traffic.
    'grpc.enable_http_proxy': 0,
    // Only the gateway knows how to reopen a lost stream.
    'grpc.enable_retries': 0,
  } satisfies ChannelOptions);
}

const roundRobin = JSON.stringify({ loadBalancingConfig: [{ round_robin: {} }] });

function caller(channel: Client, method: DescMethod): unknown {
  const definition = methodDefinition(method);
  switch (method.methodKind) {
    case 'unary':
      return (request: never, options?: CallOptions) => callUnary(channel, definition, request, options);
    case 'server_streaming':
      return (request: never, options?: CallOptions) => callServerStreaming(channel, definition, request, options);
    case 'bidi_streaming':
      return (options?: BidiOptions<never>) => callBidi(channel, definition, options);
    default:
      throw new Error(`${method.toString()}: client streaming is not implemented`);
  }
}

async function waitForReady(channel: Client, timeoutMs: number): Promise<void> {
  const wait = promisify(channel.waitForReady.bind(channel));
  await wait(Date.now() + timeoutMs).catch((cause: unknown) => {
    throw new PtpError('unavailable', 'the service cannot be reached', { cause });
  });
}

import type { DescMethod, DescService } from '@bufbuild/protobuf';
import { type ChannelOptions, Client } from '@grpc/grpc-js';
import {
  type BidiCall,
  type CallOptions,
  callBidi,
  callServerStreaming,
  callUnary,
  type ServerStream,
} from './calls.ts';
import { clientCredentials, type Tls } from './credentials.ts';
import { PtpError } from './errors.ts';
import { methodDefinition, type RequestInit, type Response } from './methods.ts';

/** How a method is called, by its kind. */
export type Call<M extends DescMethod> = M['methodKind'] extends 'unary'
  ? (request: RequestInit<M>, options?: CallOptions) => Promise<Response<M>>
  : M['methodKind'] extends 'server_streaming'
    ? (request: RequestInit<M>, options?: CallOptions) => ServerStream<Response<M>>
    : M['methodKind'] extends 'bidi_streaming'
      ? (options?: CallOptions) => BidiCall<RequestInit<M>, Response<M>>
      : never;

/** A service's methods by camelCase names, and the connection that they share. */
export type ServiceClient<S extends DescService> = { readonly [K in keyof S['method']]: Call<S['method'][K]> } & {
  /**
   * Waits for a connection.
   *
   * @throws PtpError `unavailable` when there is none after that time
   */
  waitForReady(timeoutMs: number): Promise<void>;
  /** Closes the connection when the calls in progress have ended. */
  close(): void;
};

export interface ConnectOptions {
  /** Largest message to take, bytes; 64 MiB unless given. */
  readonly maxReceiveBytes?: number;
  /**
   * Connects at once and apart from other clients in this process. Otherwise clients of one address share a connection and
   * its state: where one sees the service come back, all do.
   */
  readonly apart?: boolean;
  /** Not used with sockets in the file system. */
  readonly tls?: Tls | undefined;
}

/**
 * A client for a service. It connects at its first call, reconnects by itself (waiting 1 s at most between tries), and
 * spreads calls over all addresses that a DNS name has.
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

/** A connection to a server, which reconnects by itself. */
export type Connection = Client;

/** A client for a service on a connection that others may use too; closing it closes the connection. */
export function clientOn<S extends DescService>(channel: Client, service: S): ServiceClient<S> {
  const methods = service.methods.map((method) => [method.localName, caller(channel, method)]);
  return Object.assign(Object.fromEntries(methods), {
    waitForReady: (timeoutMs: number) => waitForReady(channel, timeoutMs),
    close: () => channel.close(),
  });
}

/** A connection with the options that all our clients use. */
export function openChannel(address: string, options: ConnectOptions = {}): Client {
  const { maxReceiveBytes = 64 * 2 ** 20, apart = false, tls } = options;
  return new Client(address, clientCredentials(address, tls), {
    'grpc.max_receive_message_length': maxReceiveBytes,
    'grpc.max_send_message_length': -1,
    // a peer that is gone without a word is noticed after 6 s
    'grpc.keepalive_time_ms': 3_000,
    'grpc.keepalive_timeout_ms': 3_000,
    'grpc.initial_reconnect_backoff_ms': 100,
    'grpc.max_reconnect_backoff_ms': 1_000,
    'grpc.dns_min_time_between_resolutions_ms': 1_000,
    'grpc.service_config': roundRobin,
    'grpc.service_config_disable_resolution': 1,
    'grpc.use_local_subchannel_pool': apart ? 1 : 0,
    // the services are each other's neighbours; a proxy set for the way out isn't meant for them
    'grpc.enable_http_proxy': 0,
    // only the gateway knows whether and with what a lost stream can be opened again
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
      return (options?: CallOptions) => callBidi(channel, definition, options);
    default:
      throw new Error(`${method.toString()}: client streaming is not supported; no protocol of ours needs it`);
  }
}

function waitForReady(channel: Client, timeoutMs: number): Promise<void> {
  return new Promise((resolve, reject) => {
    channel.waitForReady(Date.now() + timeoutMs, (error) => {
      if (error) reject(new PtpError('unavailable', 'the service cannot be reached', { cause: error }));
      else resolve();
    });
  });
}

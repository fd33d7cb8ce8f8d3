import { once } from 'node:events';
import { createServer, type ListenOptions, type Socket } from 'node:net';
import { createServer as createTlsServer, type Server as TlsServer } from 'node:tls';
import { type Server, ServerCredentials } from '@grpc/grpc-js';
import { connectionLimit } from './connection-limit.ts';
import type { Tls } from './credentials.ts';

/** Maximum time in milliseconds until a new connection has completed its TLS handshake and sent its first request. */
const FIRST_BYTES_MS = 20_000;
/** Number of bytes with which every HTTP/2 client begins: the preface and an empty SETTINGS frame. */
const PREFACE_BYTES = 24 + 9;

/** A listening socket whose connections a gRPC server handles. */
export interface Door {
  readonly port: number | undefined;
  /** Stops accepting connections. Resolves when all connections have ended. */
  close(): Promise<void>;
  /** Ends all connections. */
  destroy(): void;
}

export interface DoorOptions {
  readonly where: ListenOptions;
  readonly tls: Tls | undefined;
  readonly firstBytesMs?: number | undefined;
  /** Maximum number of open connections. */
  readonly maxConnections?: number;
}

/**
 * Accepts the connections of a gRPC server. grpc-js could listen too, but with TLS it uses
 * `http2.createSecureServer`, which never notices that a connection was reset during the event-loop turn in which its
 * handshake ended (nodejs/node#42710, #44523): the socket and 65 KB of memory are never freed. Here, a connection is
 * handed over one turn later, and only if it is still open.
 */
export async function openDoor(
  server: Server,
  { where, tls, firstBytesMs = FIRST_BYTES_MS, maxConnections = connectionLimit() }: DoorOptions,
): Promise<Door> {
  const injector = server.createConnectionInjector(ServerCredentials.createInsecure());
  const accept = (socket: Socket) => {
    socket.on('error', () => {}); // A connection that fails closes too.
    setImmediate(() => {
      if (!listener.listening) socket.destroy();
      if (socket.destroyed) return;
      injector.injectConnection(socket);
      closeIfSilent(socket, firstBytesMs);
    });
  };
  const listener = tls ? tlsListener(tls, firstBytesMs, accept) : createServer({ noDelay: true }, accept);
  listener.maxConnections = maxConnections;
  // With TLS, these are the sockets below it, so that they include connections whose handshake has not ended.
  const connections = new Set<Socket>();
  listener.on('connection', (socket: Socket) => {
    connections.add(socket);
    socket.on('close', () => connections.delete(socket));
  });
  listener.listen(where);
  await once(listener, 'listening');
  const address = listener.address();
  return {
    port: typeof address === 'object' ? address?.port : undefined,
    close: () => new Promise((resolve) => listener.close(() => resolve())),
    destroy() {
      for (const connection of connections) connection.destroy();
    },
  };
}

function tlsListener(tls: Tls, handshakeTimeout: number, accept: (socket: Socket) => void): TlsServer {
  const options = { ...tls.serverOptions(), ALPNProtocols: ['h2'], handshakeTimeout, noDelay: true };
  const listener = createTlsServer(options, (socket) => {
    if (tls.admits(socket.getPeerX509Certificate())) accept(socket);
    else socket.destroy();
  });
  listener.on('tlsClientError', (_, socket) => socket.destroy());
  const renew = () => listener.setSecureContext(tls.serverOptions());
  tls.onRenewal(renew);
  listener.on('close', () => tls.removeListener(renew));
  return listener;
}

/** Closes a connection on which no client has begun to speak HTTP/2 in time. */
function closeIfSilent(socket: Socket, firstBytesMs: number): void {
  const timer = setTimeout(() => {
    if (socket.bytesRead < PREFACE_BYTES) socket.destroy();
  }, firstBytesMs);
  timer.unref();
  socket.on('close', () => clearTimeout(timer));
}

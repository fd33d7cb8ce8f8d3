import type { X509Certificate } from 'node:crypto';
import { type ConnectionOptions, connect, type TLSSocket } from 'node:tls';

const TIMEOUT_MS = 5_000;

/** Opens a TLS connection to a server that speaks HTTP/2 or HTTP/1.1. Errors close the socket. */
export function connectTls(port: number, options: ConnectionOptions = {}): TLSSocket {
  const socket = connect({ port, host: '127.0.0.1', ALPNProtocols: ['h2', 'http/1.1'], ...options });
  return socket.on('error', () => {});
}

/** Returns the certificate that a server presents, or undefined if no handshake completes. */
export function servedCertificate(port: number): Promise<X509Certificate | undefined> {
  return new Promise((resolve) => {
    const socket = connectTls(port, { rejectUnauthorized: false });
    socket.setTimeout(TIMEOUT_MS, () => socket.destroy());
    socket.on('close', () => resolve(undefined));
    socket.on('secureConnect', () => {
      resolve(socket.getPeerX509Certificate());
      socket.destroy();
    });
  });
}

import { PtpError } from '@ptp/protocol/errors';
import type { Address } from '@ptp/service-kit/settings';
import type { FastifyInstance } from 'fastify';

/**
 * Starts to accept requests.
 *
 * @param setting name of the setting with the address, for error messages
 * @throws PtpError `failed_precondition` if the address is in use
 */
export async function listenHttp(app: FastifyInstance, address: Address, setting: string): Promise<void> {
  const options = 'path' in address ? { path: address.path } : { host: address.host, port: address.port };
  await app.listen(options).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code !== 'EADDRINUSE') throw cause;
    const message = `${address.target} is in use: set ${setting} to another address`;
    throw new PtpError('failed_precondition', message, { field: setting, cause });
  });
}

/** Stops accepting requests, and aborts responses that have not finished after `graceMs`. */
export function closeHttp(app: FastifyInstance, graceMs: number): Promise<void> {
  const timer = setTimeout(() => app.server.closeAllConnections(), graceMs);
  return app.close().finally(() => clearTimeout(timer));
}

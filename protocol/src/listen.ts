import { lstat, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { promisify } from 'node:util';
import { logVerbosity, type Server, setLogVerbosity } from '@grpc/grpc-js';
import { serverCredentials, type Tls } from './credentials.ts';
import { PtpError } from './errors.ts';

// grpc-js prints errors that it also reports to its caller, so its printing is off. Set GRPC_VERBOSITY to see the
// errors when debugging.
if (!process.env.GRPC_VERBOSITY) setLogVerbosity(logVerbosity.NONE);

/**
 * Binds a server to `host:port` (port 0: any free port) or `unix:/path`. Replaces a stale socket file.
 *
 * @param setting name of the setting that holds the address, for errors, for example `PTP_LISTEN`
 * @returns the address with the actual port
 * @throws PtpError `failed_precondition` with a one-line message that names the setting to change
 */
export async function listen(server: Server, address: string, setting = 'the address', tls?: Tls): Promise<string> {
  const path = address.startsWith('unix:') ? address.slice('unix:'.length) : undefined;
  if (path !== undefined) await removeStaleSocket(path, address, setting);
  try {
    const bind = promisify(server.bindAsync.bind(server));
    const port = await bind(address, serverCredentials(address, tls));
    return path === undefined ? address.replace(/:\d+$/, `:${port}`) : address;
  } catch (error) {
    if (String(error).includes('EADDRINUSE')) throw inUse(address, setting, error);
    const reason = error instanceof Error ? error.message : String(error);
    throw new PtpError(
      'failed_precondition',
      `cannot listen on ${address}: ${reason}; set ${setting} to another address`,
      {
        field: setting,
        cause: error,
      },
    );
  }
}

async function removeStaleSocket(path: string, address: string, setting: string): Promise<void> {
  const found = await lstat(path).catch(() => undefined);
  if (!found) return;
  if (!found.isSocket()) {
    throw new PtpError('failed_precondition', `${address} is a file, not a socket: set ${setting} to another path`, {
      field: setting,
    });
  }
  if (await answers(path)) throw inUse(address, setting);
  await rm(path, { force: true });
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path, () => {
      socket.destroy();
      resolve(true);
    });
    socket.on('error', () => resolve(false));
  });
}

function inUse(address: string, setting: string, cause?: unknown): PtpError {
  return new PtpError('failed_precondition', `${address} is in use: set ${setting} to another address`, {
    field: setting,
    cause,
  });
}

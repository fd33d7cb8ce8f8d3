import { lookup } from 'node:dns/promises';
import { lstat, rm } from 'node:fs/promises';
import { connect, type ListenOptions } from 'node:net';
import { logVerbosity, type Server, setLogVerbosity } from '@grpc/grpc-js';
import { type Tls, tlsAt } from './credentials.ts';
import { type Door, openDoor } from './door.ts';
import { PtpError } from './errors.ts';

// grpc-js prints errors that it also reports to its caller, so its printing is off. Set GRPC_VERBOSITY to see the
// errors when debugging.
if (!process.env.GRPC_VERBOSITY) setLogVerbosity(logVerbosity.NONE);

/** Result of {@link listen}. */
export interface Listening {
  /** The address with the actual port. */
  readonly address: string;
  /** Stops accepting connections. Resolves when all connections have ended. */
  close(): Promise<unknown>;
  /** Ends all connections. */
  destroy(): void;
}

/**
 * Binds a server to `host:port` (port 0: any free port) or `unix:/path`. A name is bound at each of its addresses that
 * the machine has. Replaces a stale socket file.
 *
 * @param setting name of the setting that holds the address, for errors, for example `PTP_LISTEN`
 * @throws PtpError `failed_precondition` with a one-line message that names the setting to change
 */
export async function listen(server: Server, address: string, setting = 'the address', tls?: Tls): Promise<Listening> {
  const path = address.startsWith('unix:') ? address.slice('unix:'.length) : undefined;
  if (path !== undefined) await removeStaleSocket(path, address, setting);
  const doors: Door[] = [];
  const close = () => Promise.all(doors.map((door) => door.close()));
  const destroy = () => {
    for (const door of doors) door.destroy();
  };
  try {
    let unavailable: unknown;
    for (const where of path === undefined ? await placesOf(address) : [{ path }]) {
      // All addresses of a name get the port that the first one was given.
      const port = doors[0]?.port ?? where.port;
      const options = { where: { ...where, ...(port !== undefined && { port }) }, tls: tlsAt(address, tls) };
      try {
        doors.push(await openDoor(server, options));
      } catch (error) {
        if (!isUnavailable(error)) throw error;
        unavailable ??= error;
      }
    }
    if (doors.length === 0) throw unavailable;
    return { address: path === undefined ? address.replace(/:\d+$/, `:${doors[0]?.port}`) : address, close, destroy };
  } catch (error) {
    void close();
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

/** Returns the distinct addresses of `host:port` or `[IPv6]:port`. */
async function placesOf(address: string): Promise<ListenOptions[]> {
  const [, host = '', port] = /^\[?(.*?)\]?:(\d+)$/.exec(address) ?? [];
  const found = await lookup(host, { all: true });
  return [...new Set(found.map((each) => each.address))].map((each) => ({ host: each, port: Number(port) }));
}

/** Returns true if the machine lacks the address, as containers without IPv6 lack the `::1` of `localhost`. */
function isUnavailable(error: unknown): boolean {
  return ['EADDRNOTAVAIL', 'EAFNOSUPPORT'].includes(String((error as NodeJS.ErrnoException).code));
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

import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';

/**
 * Returns addresses at which processes of this machine can listen for the others: sockets in `folder`, or free ports on
 * Windows, where gRPC has no Unix sockets.
 */
export async function localAddresses<const Names extends readonly string[]>(
  folder: string,
  names: Names,
  platform = process.platform,
): Promise<{ [Name in Names[number]]: string }> {
  const addresses = platform === 'win32' ? await freePorts(names.length) : names.map((name) => socket(folder, name));
  return Object.fromEntries(names.map((name, i) => [name, addresses[i]])) as { [Name in Names[number]]: string };
}

const socket = (folder: string, name: string) => `unix:${join(folder, `${name}.sock`)}`;

/** Returns addresses with different ports. All ports are opened before the first is closed, so none is chosen twice. */
async function freePorts(count: number): Promise<string[]> {
  const servers = Array.from({ length: count }, () => createServer().listen(0, '127.0.0.1'));
  await Promise.all(servers.map((server) => once(server, 'listening')));
  const addresses = servers.map((server) => `127.0.0.1:${(server.address() as AddressInfo).port}`);
  await Promise.all(servers.map((server) => once(server.close(), 'close')));
  return addresses;
}

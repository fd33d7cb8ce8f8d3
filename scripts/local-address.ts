import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';

/**
 * Returns an address at which a process of this machine can listen for the others: a socket in `folder`, or a free port
 * on Windows, where gRPC has no Unix sockets.
 */
export async function localAddress(folder: string, name: string, platform = process.platform): Promise<string> {
  if (platform !== 'win32') return `unix:${join(folder, `${name}.sock`)}`;
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return `127.0.0.1:${port}`;
}

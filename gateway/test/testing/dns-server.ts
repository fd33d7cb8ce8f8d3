import { createSocket } from 'node:dgram';
import { Resolver } from 'node:dns/promises';
import { once } from 'node:events';

/** A DNS server that answers every question with the same IPv4 addresses. */
export async function startDns(addresses: readonly string[]) {
  let current = addresses;
  const socket = createSocket('udp4', (query, { port, address }) => socket.send(answer(query, current), port, address));
  socket.bind(0, '127.0.0.1');
  await once(socket, 'listening');
  const resolver = new Resolver({ timeout: 1000, tries: 1 });
  resolver.setServers([`127.0.0.1:${socket.address().port}`]);
  return {
    resolve: (name: string) => resolver.resolve4(name),
    /** Changes the answer. Without addresses, the name does not exist. */
    set(next: readonly string[]) {
      current = next;
    },
    close: () => socket.close(),
  };
}

/** Returns the answer to a query with one question (RFC 1035, section 4). */
function answer(query: Buffer, addresses: readonly string[]): Buffer {
  let end = 12;
  while (query[end] !== 0) end += (query[end] as number) + 1;
  const question = query.subarray(12, end + 5);
  const header = Buffer.alloc(12);
  query.copy(header, 0, 0, 2);
  header.writeUInt16BE(addresses.length > 0 ? 0x8180 : 0x8183, 2); // response, recursion; 3: no such name
  header.writeUInt16BE(1, 4);
  header.writeUInt16BE(addresses.length, 6);
  const records = addresses.map((address) => {
    const record = Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 0, 0, 0, 0]); // type A, for 1 s
    record.set(address.split('.').map(Number), 12);
    return record;
  });
  return Buffer.concat([header, question, ...records]);
}

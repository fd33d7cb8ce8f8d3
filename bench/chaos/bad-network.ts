import { once } from 'node:events';
import { connect, createServer, type ListenOptions, type NetConnectOpts, type Socket } from 'node:net';

/** One direction of a connection. */
interface Direction {
  readonly to: Socket;
  readonly fromService: boolean;
  /** Chunks that were received and not yet sent. */
  readonly waiting: Buffer[];
  /** Time at which the last chunk is sent. */
  dueMs: number;
}

/** A TCP proxy in front of one service. It behaves like a bad network. */
export class BadNetwork {
  readonly #server = createServer((socket) => this.#accept(socket));
  readonly #target: NetConnectOpts;
  readonly #sockets = new Set<Socket>();
  /** Delay in milliseconds in each direction. */
  delayMs = 0;
  /** True to drop all data while connections stay open. */
  silent = false;
  /** Number of further chunks from the service in which one byte is changed. */
  corrupt = 0;

  private constructor(target: NetConnectOpts) {
    this.#target = target;
  }

  /** @param at address of the proxy. Default: a free port of 127.0.0.1 */
  static async start(target: NetConnectOpts, at: ListenOptions = { port: 0, host: '127.0.0.1' }): Promise<BadNetwork> {
    const network = new BadNetwork(target);
    await once(network.#server.listen(at), 'listening');
    return network;
  }

  get port(): number {
    return (this.#server.address() as { port: number }).port;
  }

  /** Resets all TCP connections. */
  cut(): void {
    for (const socket of this.#sockets) socket.resetAndDestroy();
  }

  close(): void {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  #accept(near: Socket): void {
    const far = connect(this.#target);
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      const direction: Direction = { to, fromService: from === far, waiting: [], dueMs: 0 };
      this.#sockets.add(from);
      from.on('data', (chunk) => this.#pass(chunk, direction));
      from.on('error', () => {});
      from.on('close', () => {
        this.#sockets.delete(from);
        to.destroy();
      });
    }
  }

  #pass(chunk: Buffer, direction: Direction): void {
    const { to, waiting } = direction;
    if (this.silent) return;
    if (direction.fromService && this.corrupt > 0 && chunk.length > 0) {
      this.corrupt--;
      const at = Math.floor(chunk.length / 2);
      chunk[at] = (chunk[at] as number) ^ 0xff;
    }
    waiting.push(chunk);
    const writeNext = () => {
      const next = waiting.shift();
      if (next && !to.destroyed) to.write(next);
    };
    // Chunks keep their order, even when the delay has become shorter.
    const now = performance.now();
    direction.dueMs = Math.max(direction.dueMs, now + this.delayMs);
    if (direction.dueMs > now) setTimeout(writeNext, direction.dueMs - now);
    else writeNext();
  }
}

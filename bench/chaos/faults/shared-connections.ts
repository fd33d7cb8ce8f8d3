import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect, type ServiceClient } from '@ptp/protocol/client';
import { toPtpError } from '@ptp/protocol/errors';
import { GenerationService } from '@ptp/protocol/gen/ptp/v1/generation_pb';
import type { Fleet } from '../fleet.ts';
import { freePort } from '../free-port.ts';
import type { FleetFault } from './fault.ts';

export const hasHaproxy = spawnSync('haproxy', ['-v']).status === 0;

const CANCELS_PER_SECOND = 100;
const OTHERS = 2;
/** Maximum time in milliseconds until the first call completes, even if services have been killed. */
const START_MS = 60_000;
const REQUEST = { prompt: { case: 'text', value: 'def' }, maxTokens: 40, seed: 1n } as const;

type Client = ServiceClient<typeof GenerationService>;

interface Shared {
  readonly proxy: ChildProcess;
  readonly folder: string;
  readonly over: AbortController;
}

/** One client of a proxy cancels its calls while other clients on the same connections read their calls to the end. */
export const sharedConnections: FleetFault<Shared> = {
  name: 'client that cancels behind a proxy that shares connections',
  lasts: [4000, 10_000],
  async start(fleet) {
    const port = await freePort();
    const folder = mkdtempSync(join(tmpdir(), 'ptp-haproxy-'));
    writeFileSync(join(folder, 'haproxy.cfg'), configuration(port, fleet.grpcPort));
    const proxy = spawn('haproxy', ['-db', '-f', join(folder, 'haproxy.cfg')], { stdio: 'ignore' });
    const over = new AbortController();
    proxy.once('exit', (status) => {
      if (!over.signal.aborted) fleet.broken.push(`haproxy ended with status ${status}`);
    });
    const shared = { proxy, folder, over };
    const client = () => connect(GenerationService, `127.0.0.1:${port}`, { apart: true });
    const reader = client();
    const text = await firstText(reader).finally(() => reader.close());
    if (text === undefined) {
      end(shared);
      throw new Error(`no call completed within ${START_MS / 1000} s`);
    }
    void cancelAlways(client(), over.signal);
    for (let i = 0; i < OTHERS; i++) void readAlways(client(), text, over.signal, fleet);
    return shared;
  },
  stop: (_, shared) => end(shared),
};

function end({ proxy, folder, over }: Shared): void {
  over.abort();
  proxy.kill('SIGKILL');
  rmSync(folder, { recursive: true });
}

/** Returns the text of the first call that completes. */
async function firstText(client: Client): Promise<string | undefined> {
  for (const until = performance.now() + START_MS; performance.now() < until; await sleep(100)) {
    const text = await textOf(client).catch(() => undefined);
    if (text !== undefined) return text;
  }
  return undefined;
}

async function textOf(client: Client, onMessage = () => {}): Promise<string> {
  let text = '';
  for await (const message of client.generate(REQUEST)) {
    onMessage();
    text += message.text;
  }
  return text;
}

async function cancelAlways(client: Client, signal: AbortSignal): Promise<void> {
  for (; !signal.aborted; await sleep(1000 / CANCELS_PER_SECOND)) {
    const call = client.generate({ ...REQUEST, maxTokens: 90 });
    call.receive().catch(() => {});
    setTimeout(() => call.cancel(), 5);
  }
  client.close();
}

/** Reads calls to the end. A call that fails after its first message is lost. @param expected text of each call */
async function readAlways(client: Client, expected: string, signal: AbortSignal, fleet: Fleet): Promise<void> {
  while (!signal.aborted) {
    let begun = false;
    try {
      const text = await textOf(client, () => {
        begun = true;
      });
      if (text !== expected) fleet.broken.push(`call behind a proxy: wrong text ${JSON.stringify(text)}`);
    } catch (error) {
      const { code, message } = toPtpError(error);
      if (begun && !signal.aborted) fleet.broken.push(`call behind a proxy: ${code}: ${message}`);
      await sleep(100);
    }
  }
  client.close();
}

function configuration(port: number, gateway: number): string {
  return `defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend clients
  bind 127.0.0.1:${port} proto h2
  default_backend gateway
backend gateway
  http-reuse always
  server gateway 127.0.0.1:${gateway} ssl verify none alpn h2 proto h2
`;
}

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const root = join(import.meta.dirname, '..');

/** Runs scripts/start.ts as npm does, with its own temporary folder. `kill` ends it and removes the folder. */
export async function start(...args: string[]) {
  const TMPDIR = await mkdtemp(join(tmpdir(), 's-')); // The name is short, because a socket's path is limited to 107 bytes.
  const child = spawn(process.execPath, [join(root, 'scripts', 'start.ts'), ...args], {
    cwd: root,
    env: { ...process.env, TMPDIR, NO_COLOR: '1', FORCE_COLOR: undefined },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk) => {
      output += chunk;
    });
  }
  const ended = once(child, 'close').then(([code]) => code);
  const kill = async () => {
    child.kill('SIGKILL'); // The services stop too.
    await ended;
    await rm(TMPDIR, { recursive: true, force: true });
  };
  return { child, ended, folder: TMPDIR, output: () => output, kill };
}

/** Returns the first of two consecutive free ports. */
export async function freePort(): Promise<number> {
  for (;;) {
    const servers = [createServer(), createServer()] as const;
    try {
      await once(servers[0].listen(0, '127.0.0.1'), 'listening');
      const { port } = servers[0].address() as AddressInfo;
      await once(servers[1].listen(port + 1, '127.0.0.1'), 'listening');
      return port;
    } catch {
      // If the port is in use, try another one.
    } finally {
      for (const server of servers) server.close();
    }
  }
}

/** Returns the process ids of the services and workers by name. Only on Linux. */
export function servicesOf({ pid }: ChildProcess): Record<string, number> {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').map(Number);
  const named = children.map((child) => {
    const command = readFileSync(`/proc/${child}/cmdline`, 'utf8');
    return [/(\w+)\/src\/main\.ts/.exec(command)?.[1] ?? /(\w+)\.sock/.exec(command)?.[1], child];
  });
  return Object.fromEntries(named);
}

export function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

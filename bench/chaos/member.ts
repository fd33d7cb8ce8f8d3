import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Identity } from './certificates.ts';

export const ROOT = join(import.meta.dirname, '..', '..');
/** Pause in milliseconds before a process that ended unexpectedly is started again. */
const RESTART_MS = 500;

export type Kind = 'verifier' | 'drafter' | 'gateway' | 'engine' | 'idle';

export interface MemberOptions {
  readonly kind: Kind;
  readonly env: NodeJS.ProcessEnv;
  /** Script and arguments. Default: the main script of the service. */
  readonly command?: readonly string[];
  readonly identity?: Identity;
}

/** One process of the fleet. It is restarted when it ends unexpectedly. */
export class Member {
  readonly kind: Kind;
  readonly identity: Identity | undefined;
  readonly #env: NodeJS.ProcessEnv;
  readonly #command: readonly string[];
  #child: ChildProcess | undefined;
  #ending = false;
  #restart: NodeJS.Timeout | undefined;

  constructor({ kind, env, command = [join(ROOT, kind, 'src', 'main.ts')], identity }: MemberOptions) {
    this.kind = kind;
    this.identity = identity;
    this.#env = env;
    this.#command = command;
  }

  start(): void {
    const child = spawn(process.execPath, this.#command, {
      cwd: ROOT,
      env: { ...process.env, PTP_LOG_LEVEL: process.env.PTP_LOG_LEVEL ?? 'fatal', ...this.#env },
      stdio: ['ignore', 'inherit', 'inherit'],
    });
    this.#child = child;
    child.once('exit', () => {
      if (this.#child === child && !this.#ending) this.#restart = setTimeout(() => this.start(), RESTART_MS);
    });
    this.#ending = false;
  }

  get running(): boolean {
    return this.#child?.exitCode === null && this.#child.signalCode === null;
  }

  /** Resident memory in MB, and number of open files and sockets. Both are 0 while the process is down. */
  get usage(): { readonly mb: number; readonly handles: number } {
    const pid = this.#child?.pid;
    if (!this.running || pid === undefined) return { mb: 0, handles: 0 };
    const kilobytes = Number(execFileSync('ps', ['-o', 'rss=', '-p', String(pid)]));
    return { mb: Math.round((kilobytes * 1024) / 1e6), handles: readdirSync(`/proc/${pid}/fd`).length };
  }

  signal(signal: NodeJS.Signals): void {
    if (this.running) this.#child?.kill(signal);
  }

  /** Stops the process and keeps it down until `start`. */
  async end(signal: NodeJS.Signals): Promise<void> {
    clearTimeout(this.#restart);
    this.#ending = true;
    if (!this.running || !this.#child) return;
    const ended = once(this.#child, 'exit');
    this.#child.kill(signal);
    await ended;
  }
}

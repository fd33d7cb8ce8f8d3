import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { constants, getPriority, setPriority } from 'node:os';
import { join } from 'node:path';
import type { Identity } from './certificates.ts';

export const ROOT = join(import.meta.dirname, '..', '..');
/** Pause in milliseconds before a process that ended unexpectedly is started again. */
const RESTART_MS = 500;
const PRIORITY = getPriority();
/** Difference (nice) between the gateway's priority and the lower one of services and clients. */
const YIELDED = 10;

export type Kind = 'verifier' | 'drafter' | 'gateway' | 'engine' | 'idle';

export interface MemberOptions {
  readonly kind: Kind;
  readonly env: NodeJS.ProcessEnv;
  /** Script and arguments. Default: the main script of the service. */
  readonly command?: readonly string[];
  readonly identity?: Identity;
  /** Process that runs the model. The member may end unexpectedly after this process was killed or hung. */
  readonly engine?: Member | undefined;
  /** Called with a description of each unexpected end that `engine` does not explain. */
  readonly onCrash?: (problem: string) => void;
}

/** One process of the fleet. It is restarted when it ends unexpectedly. */
export class Member {
  readonly kind: Kind;
  readonly identity: Identity | undefined;
  readonly #env: NodeJS.ProcessEnv;
  readonly #command: readonly string[];
  readonly #engine: Member | undefined;
  readonly #onCrash: (problem: string) => void;
  /** Number of times that the process was ended or hung. */
  #faults = 0;
  /** Number of faults of the engine when the process was started. */
  #engineFaults = 0;
  #child: ChildProcess | undefined;
  #ending = false;
  #restart: NodeJS.Timeout | undefined;

  constructor(options: MemberOptions) {
    const { kind, env, command = [join(ROOT, kind, 'src', 'main.ts')], identity, engine, onCrash = () => {} } = options;
    this.kind = kind;
    this.identity = identity;
    this.#env = env;
    this.#command = command;
    this.#engine = engine;
    this.#onCrash = onCrash;
  }

  start(): void {
    const child = spawn(process.execPath, this.#command, {
      cwd: ROOT,
      env: { ...process.env, PTP_LOG_LEVEL: process.env.PTP_LOG_LEVEL ?? 'fatal', ...this.#env },
      stdio: ['ignore', 'inherit', 'inherit'],
    });
    this.#child = child;
    if (this.kind !== 'gateway' && this.kind !== 'idle') yieldCores(child);
    child.once('exit', (code, signal) => {
      if (this.#child !== child || this.#ending) return;
      if (!this.#lostEngine) this.#onCrash(`${this.kind} ended unexpectedly: ${signal ?? `exit status ${code}`}`);
      this.#restart = setTimeout(() => this.start(), RESTART_MS);
    });
    this.#ending = false;
    this.#engineFaults = this.#engine?.running ? this.#engine.#faults : -1;
  }

  /** True if the engine was down when the process was started, or was ended or hung since. */
  get #lostEngine(): boolean {
    return this.#engine !== undefined && this.#engine.#faults !== this.#engineFaults;
  }

  get running(): boolean {
    return this.#child?.exitCode === null && this.#child.signalCode === null;
  }

  /** Resident memory in MB, and number of open files and sockets. Both are 0 while the process is down. */
  get usage(): { readonly mb: number; readonly handles: number } {
    const pid = this.#child?.pid;
    if (!this.running || pid === undefined) return { mb: 0, handles: 0 };
    try {
      const kilobytes = Number(execFileSync('ps', ['-o', 'rss=', '-p', String(pid)]));
      return { mb: Math.round((kilobytes * 1024) / 1e6), handles: readdirSync(`/proc/${pid}/fd`).length };
    } catch {
      // The process has just ended.
      return { mb: 0, handles: 0 };
    }
  }

  signal(signal: NodeJS.Signals): void {
    if (signal === 'SIGSTOP') this.#faults++;
    if (this.running) this.#child?.kill(signal);
  }

  /** Stops the process and keeps it down until `start`. */
  async end(signal: NodeJS.Signals): Promise<void> {
    clearTimeout(this.#restart);
    this.#ending = true;
    this.#faults++;
    if (!this.running || !this.#child) return;
    const ended = once(this.#child, 'exit');
    this.#child.kill(signal);
    await ended;
  }
}

/**
 * Gives a process a lower priority than the gateway's. In production, the gateway does not share its cores with clients
 * and services. Here, each service that starts would otherwise delay its event loop.
 */
export function yieldCores({ pid }: { readonly pid?: number | undefined }): void {
  if (pid !== undefined) setPriority(pid, Math.min(constants.priority.PRIORITY_LOW, PRIORITY + YIELDED));
}

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { extname, join } from 'node:path';
import type { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { styleText } from 'node:util';
import { PtpError } from '@ptp/protocol/errors';
import { ModelError } from '@ptp/service-kit/models/model-error';
import { printLine, printLines, type Style } from './log-lines.ts';

/** An error whose message explains to the user what to change. */
export class StartError extends Error {}

/** A process to run: a service, or the worker of an engine. */
export interface Service {
  readonly name: 'drafter' | 'verifier' | 'gateway' | 'target' | 'draft';
  readonly style: Style;
  /** Program and arguments. Default: the main file of the service with this name. */
  readonly command?: readonly string[];
  /** Variables that are added to the environment that all services share. */
  readonly env?: NodeJS.ProcessEnv;
  /** True if the other services need this one until they have ended. */
  readonly stopsLast?: boolean;
  /** Resolves to true once the service is ready. A rejection means that it is not ready yet. */
  readonly isReady: () => Promise<boolean>;
}

export const root = join(import.meta.dirname, '..');
/** Ending of this project's source files: `.ts` in a clone, `.js` in the npm package. */
export const sourceType = extname(import.meta.filename);

/** Prints a line of the supervisor among the lines of the services. */
export const say = (text: string) => printLine('start', 'bold', text);

/** Descriptions of the processes, for messages about a slow start. */
const START_WORK: Readonly<Record<Service['name'], string>> = {
  drafter: 'which loads its model',
  verifier: 'which loads the model and checks that batching does not change its results',
  gateway: 'which waits for the verifier',
  target: 'the worker that loads the model',
  draft: 'the worker that loads the draft model',
};

/** Starts, restarts and stops the services. */
export class Supervisor {
  readonly #children = new Map<Service['name'], { readonly service: Service; readonly child: ChildProcess }>();
  readonly #env: NodeJS.ProcessEnv;
  readonly #ended = Promise.withResolvers<number>();
  #stopping = false;
  #status = 0;

  constructor(env: NodeJS.ProcessEnv) {
    this.#env = env;
  }

  /** Resolves to the exit status when all services have ended: 0, or 1 after a failure. */
  get ended(): Promise<number> {
    return this.#ended.promise;
  }

  /** Process ids of the services. */
  get pids(): ReadonlyMap<Service['name'], number> {
    return new Map([...this.#children].map(([name, { child }]) => [name, child.pid ?? 0]));
  }

  /**
   * Starts a service, waits until it is ready, and restarts it whenever it ends after that.
   *
   * @throws StartError if the service ends before it is ready
   */
  async start(service: Service): Promise<void> {
    if (this.#stopping) return;
    const [program = '', ...args] = service.command ?? [
      process.execPath,
      join(root, service.name, 'src', `main${sourceType}`),
    ];
    const child = spawn(program, args, {
      cwd: root,
      env: { ...this.#env, ...service.env },
      // `detached` means that Ctrl-C reaches the service only through this process. Through the IPC channel, the
      // service notices when this process is gone; a worker notices it at the end of its standard input.
      detached: true,
      windowsHide: true,
      stdio: service.command ? ['pipe', 'pipe', 'pipe'] : ['ignore', 'pipe', 'pipe', 'ipc'],
    });
    this.#children.set(service.name, { service, child });
    printLines(service.name, service.style, child.stdout as Readable);
    printLines(service.name, service.style, child.stderr as Readable);
    const closed = once(child, 'close').then(
      ([code, signal]) => `the ${service.name} exited (${signal ?? `status ${code}`})`,
    );
    const end = await Promise.race([closed, this.#untilReady(service)]);
    if (this.#stopping) return;
    if (end !== undefined) throw new StartError(`${end} before it was ready`);
    void closed.then((reason) => this.#restart(service, reason));
  }

  /** Reports the error and stops all services. */
  fail(error: unknown): void {
    if (this.#stopping) return;
    this.#status = 1;
    reportError(error);
    this.stop('SIGTERM');
  }

  /** Sends a signal to all services. SIGTERM reaches those that others need after the others have ended. */
  stop(signal: 'SIGTERM' | 'SIGKILL'): void {
    this.#stopping = true;
    const services = [...this.#children.values()];
    const needed = signal === 'SIGTERM' ? services.filter(({ service }) => service.stopsLast) : [];
    const others = services.filter((each) => !needed.includes(each));
    void end(others, signal)
      .then(() => end(needed, signal))
      .then(() => this.#ended.resolve(this.#status));
  }

  async #untilReady(service: Service): Promise<undefined> {
    const started = performance.now();
    for (let notice = 10_000; !this.#stopping; ) {
      if (await service.isReady().catch(() => false)) return;
      const waited = performance.now() - started;
      if (waited >= notice) {
        say(`still waiting for the ${service.name}, ${START_WORK[service.name]} (${Math.round(waited / 1000)} s)`);
        notice = waited + 10_000;
      }
      // The checks take CPU time that the service needs, so a service that takes long is checked less often.
      await sleep(Math.min(Math.max(100, waited / 50), 1_000));
    }
  }

  async #restart(service: Service, reason: string): Promise<void> {
    if (this.#stopping) return;
    say(styleText('yellow', `${reason}; starting it again`));
    await sleep(1_000);
    if (!this.#stopping) await this.start(service).catch((error) => this.fail(error));
  }
}

/** Sends a signal to the processes that are running. Resolves when they have ended. */
async function end(processes: readonly { child: ChildProcess }[], signal: NodeJS.Signals): Promise<void> {
  const running = processes.filter(({ child }) => child.exitCode === null && child.signalCode === null);
  const closed = running.map(({ child }) => once(child, 'close'));
  for (const { child } of running) {
    // torchrun reports a signal as an error, but its processes end quietly with their standard input.
    if (child.stdin && signal === 'SIGTERM') child.stdin.end();
    // Windows has no SIGTERM: `kill` would end the service at once. Without its supervisor, it drains and exits.
    else if (process.platform === 'win32' && signal === 'SIGTERM') child.disconnect();
    else child.kill(signal);
  }
  await Promise.all(closed);
}

/** Prints one line for errors that users can act on, and the stack for other errors. */
export function reportError(error: unknown): void {
  const isExpected = error instanceof StartError || error instanceof PtpError || error instanceof ModelError;
  const text = isExpected ? error.message : (error as Error).stack;
  console.error(styleText('red', `ptp-server: ${text}`, { stream: process.stderr }));
}

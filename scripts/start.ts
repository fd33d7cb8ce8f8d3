// What `npm start` runs: drafter, verifier and gateway as processes of their own, until Ctrl-C.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import type { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs, styleText } from 'node:util';
import type { DescService } from '@bufbuild/protobuf';
import { type Address, describeSettings, settings } from '@ptp/core/env.ts';
import { PtpError } from '@ptp/core/errors.ts';
import { DrafterService } from '@ptp/core/gen/ptp/v1/drafter_pb.ts';
import { VerifierService } from '@ptp/core/gen/ptp/v1/verifier_pb.ts';
import { checkHealth } from '@ptp/core/rpc/health.ts';
import { drafterSettings } from '../drafter/src/settings.ts';
import { httpSettings } from '../gateway/src/settings.ts';
import { verifierSettings } from '../verifier/src/settings.ts';
import { printLines, type Style } from './log-lines.ts';

/** A reason not to go on that a person can act on. */
class StartError extends Error {}

interface Service {
  readonly name: 'drafter' | 'verifier' | 'gateway';
  readonly style: Style;
  /** @returns whether it can be used; a rejection means not yet */
  readonly isReady: () => Promise<boolean>;
}

const root = join(import.meta.dirname, '..');
const say = (text: string) => console.log(`${styleText('bold', 'start'.padEnd(8))} | ${text}`);

/** The processes, and what happens to them. */
class Supervisor {
  readonly #children = new Map<Service['name'], ChildProcess>();
  readonly #env: NodeJS.ProcessEnv;
  readonly #ended = Promise.withResolvers<number>();
  #stopping = false;
  #status = 0;

  constructor(env: NodeJS.ProcessEnv) {
    this.#env = env;
  }

  /** Resolves when all have ended: to 0, or to 1 if something failed. */
  get ended(): Promise<number> {
    return this.#ended.promise;
  }

  /**
   * Starts a service and waits until it is ready. One that ends after that is started again: the gateway carries on without
   * the drafter, and continues its streams when a verifier is back.
   *
   * @throws StartError if it ends before it is ready
   */
  async start(service: Service): Promise<void> {
    const child = spawn(process.execPath, [join(root, service.name, 'src', 'main.ts')], {
      cwd: root,
      env: this.#env,
      // a group of its own, so that Ctrl-C comes only from here; the IPC channel tells it when this process is gone
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    });
    this.#children.set(service.name, child);
    printLines(service.name, service.style, child.stdout as Readable);
    printLines(service.name, service.style, child.stderr as Readable);
    const closed = once(child, 'close').then(
      ([code, signal]) => `the ${service.name} has ended (${signal ?? `status ${code}`})`,
    );
    const end = await Promise.race([closed, this.#untilReady(service)]);
    if (this.#stopping) return;
    if (end !== undefined) throw new StartError(`${end} before it was ready`);
    void closed.then((reason) => this.#restart(service, reason));
  }

  /** Says why, and stops everything. */
  fail(error: unknown): void {
    if (this.#stopping) return;
    this.#status = 1;
    complain(error);
    this.stop('SIGTERM');
  }

  /** Asks all to end, or ends them. */
  stop(signal: 'SIGTERM' | 'SIGKILL'): void {
    this.#stopping = true;
    const running = [...this.#children.values()].filter(
      (child) => child.exitCode === null && child.signalCode === null,
    );
    const closed = running.map((child) => once(child, 'close'));
    for (const child of running) child.kill(signal);
    void Promise.all(closed).then(() => this.#ended.resolve(this.#status));
  }

  async #untilReady(service: Service): Promise<undefined> {
    for (let waited = 0; !this.#stopping; waited += 100) {
      if (await service.isReady().catch(() => false)) return;
      if (waited > 0 && waited % 10_000 === 0) say(`still waiting for the ${service.name}`);
      await sleep(100);
    }
  }

  async #restart(service: Service, reason: string): Promise<void> {
    if (this.#stopping) return;
    say(styleText('yellow', `${reason}; starting it again`));
    await sleep(1_000);
    if (!this.#stopping) await this.start(service).catch((error) => this.fail(error));
  }
}

function complain(error: unknown): void {
  const text = error instanceof StartError || error instanceof PtpError ? error.message : (error as Error).stack;
  console.error(styleText('red', `ptp-server: ${text}`, { stream: process.stderr }));
}

function flags() {
  const options = {
    models: { type: 'string' },
    port: { type: 'string' },
    help: { type: 'boolean', short: 'h' },
  } as const;
  try {
    return parseArgs({ options }).values;
  } catch (error) {
    throw new StartError(`${(error as Error).message}; see npm start -- --help`);
  }
}

/** What the command line says, as environment of the services. */
function environment(): NodeJS.ProcessEnv {
  const values = flags();
  if (values.help) {
    console.log(help());
    process.exit(0);
  }
  const env = { ...process.env };
  if (values.models) env.PTP_MODELS = resolve(env.INIT_CWD ?? '.', values.models);
  if (values.port) {
    const port = Number(values.port);
    if (!Number.isInteger(port) || port < 1 || port > 65535) {
      throw new StartError(`--port must be an integer in [1, 65535], got ${JSON.stringify(values.port)}`);
    }
    const { target } = settings(httpSettings, env).listen;
    env[httpSettings.listen.name] = target.replace(/:\d+$/, `:${port}`);
  }
  return env;
}

function help(): string {
  const tables = Object.entries({ gateway: httpSettings, verifier: verifierSettings, drafter: drafterSettings });
  return [
    'Starts drafter, verifier and gateway, and stops them at Ctrl-C.',
    '',
    '  npm start -- [--models DIR] [--port N]',
    '',
    '  --models DIR   folder of the pair (PTP_MODELS)',
    `  --port N       port of the HTTP API (in ${httpSettings.listen.name})`,
    '',
    'Environment variables:',
    ...tables.map(([name, table]) => `\n${name}\n${describeSettings(table)}`),
  ].join('\n');
}

/** Fails early and clearly for what would end the gateway late and with a stack. */
async function checkPort(address: Address): Promise<void> {
  if (!('port' in address))
    throw new StartError(`npm start serves HTTP on host:port; ${httpSettings.listen.name} is a socket path`);
  const { host, port } = address;
  const probe = createServer();
  try {
    probe.listen(port, host);
    await once(probe, 'listening');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const problem = code === 'EADDRINUSE' ? `port ${port} is taken` : `cannot listen on ${host}:${port} (${code})`;
    throw new StartError(`${problem}: set ${httpSettings.listen.name} or --port to another one`);
  }
  probe.close();
  await once(probe, 'close');
}

function checkModels(folder: string): void {
  if (existsSync(resolve(root, folder, 'manifest.json'))) return;
  throw new StartError(`${folder} holds no model (manifest.json): set PTP_MODELS or --models to a folder that does`);
}

/** A gRPC service is ready when the standard health service says so. */
function grpcService(name: Service['name'], style: Style, address: string, service: DescService): Service {
  const isReady = async () => (await checkHealth(address, service, { deadlineMs: 1_000 })) === 'SERVING';
  return { name, style, isReady };
}

async function answersOk(url: string): Promise<boolean> {
  const response = await fetch(url, { signal: AbortSignal.timeout(1_000) });
  await response.body?.cancel();
  return response.ok;
}

function sayReady(url: string): void {
  const body =
    '{"model":"default","prompt":"export interface User {\\n","max_tokens":120,"temperature":0.7,"stream":true}';
  say(`ready at ${styleText('bold', url)}; try`);
  console.log(`\ncurl -N ${url}/v1/completions -H 'content-type: application/json' -d '${body}'\n`);
}

/** @returns the exit status */
async function main(): Promise<number> {
  const env = environment();
  checkModels(settings(verifierSettings, env).models);
  const http = settings(httpSettings, env).listen;
  await checkPort(http);

  const sockets = await mkdtemp(join(tmpdir(), 'ptp-')); // mode 0700
  env.PTP_DRAFTER_ADDRESS ||= `unix:${join(sockets, 'drafter.sock')}`;
  env.PTP_VERIFIER_ADDRESS ||= `unix:${join(sockets, 'verifier.sock')}`;
  // 0.0.0.0 and :: are for listening only
  const url = `http://${http.target.replace(/^(0\.0\.0\.0|\[::\])/, '127.0.0.1')}`;
  const services: Service[] = [
    grpcService('drafter', 'magenta', env.PTP_DRAFTER_ADDRESS, DrafterService),
    grpcService('verifier', 'cyan', env.PTP_VERIFIER_ADDRESS, VerifierService),
    { name: 'gateway', style: 'green', isReady: () => answersOk(`${url}/readyz`) },
  ];

  const supervisor = new Supervisor(env);
  let asked = 0;
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.on(signal, () => {
      asked += 1;
      say(asked === 1 ? 'stopping (Ctrl-C again to kill)' : 'killing');
      supervisor.stop(asked === 1 ? 'SIGTERM' : 'SIGKILL');
    });
  }
  Promise.all(services.map((service) => supervisor.start(service))).then(
    () => asked === 0 && sayReady(url),
    (error) => supervisor.fail(error),
  );
  try {
    return await supervisor.ended;
  } finally {
    await rm(sockets, { recursive: true, force: true });
  }
}

try {
  process.exitCode = await main();
} catch (error) {
  complain(error);
  process.exitCode = 1;
}

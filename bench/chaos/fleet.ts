import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect } from '@ptp/protocol/client';
import { Tls } from '@ptp/protocol/credentials';
import { VerifierService } from '@ptp/protocol/gen/ptp/v1/verifier_pb';
import { BadNetwork } from './bad-network.ts';
import { freePort } from './free-port.ts';

const ROOT = join(import.meta.dirname, '..', '..');
const START_TIMEOUT_MS = 60_000;

type Kind = 'verifier' | 'drafter' | 'gateway';

/** One process of the fleet. It is restarted when it ends unexpectedly. */
export class Member {
  readonly kind: Kind;
  readonly #env: NodeJS.ProcessEnv;
  #child: ChildProcess | undefined;
  #ending = false;
  #restart: NodeJS.Timeout | undefined;

  constructor(kind: Kind, env: NodeJS.ProcessEnv) {
    this.kind = kind;
    this.#env = env;
  }

  start(): void {
    const child = spawn(process.execPath, [join(ROOT, this.kind, 'src', 'main.ts')], {
      cwd: ROOT,
      env: { ...process.env, PTP_LOG_LEVEL: process.env.PTP_LOG_LEVEL ?? 'fatal', ...this.#env },
      stdio: ['ignore', 'inherit', 'inherit'],
    });
    this.#child = child;
    child.once('exit', () => {
      if (this.#child === child && !this.#ending) this.#restart = setTimeout(() => this.start(), 500);
    });
    this.#ending = false;
  }

  get running(): boolean {
    return this.#child?.exitCode === null && this.#child.signalCode === null;
  }

  /** Resident memory in bytes; 0 while the process is down. */
  get memory(): number {
    if (!this.running) return 0;
    return Number(execFileSync('ps', ['-o', 'rss=', '-p', String(this.#child?.pid)]).toString()) * 1024;
  }

  /** Number of open files and sockets; 0 while the process is down. */
  get handles(): number {
    if (!this.running) return 0;
    return readdirSync(`/proc/${this.#child?.pid}/fd`).length;
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

/** A service and the bad network in front of it. */
export interface Node {
  readonly member: Member;
  readonly network: BadNetwork;
  readonly port: number;
}

/**
 * A gateway, verifiers and drafters, each a process of its own. They communicate over TCP with mutual TLS; every verifier
 * and drafter is behind a bad network.
 */
export class Fleet {
  readonly url: string;
  readonly gateway: Member;
  readonly verifiers: readonly Node[];
  readonly drafters: readonly Node[];
  readonly #tls: Tls;
  readonly #folder: string;

  private constructor(parts: Pick<Fleet, 'url' | 'gateway' | 'verifiers' | 'drafters'>, tls: Tls, folder: string) {
    this.url = parts.url;
    this.gateway = parts.gateway;
    this.verifiers = parts.verifiers;
    this.drafters = parts.drafters;
    this.#tls = tls;
    this.#folder = folder;
  }

  static async start(models: string, verifiers: number, drafters: number): Promise<Fleet> {
    const folder = await mkdtemp(join(tmpdir(), 'ptp-chaos-'));
    const [cert, key] = [join(folder, 'fleet.crt'), join(folder, 'fleet.key')];
    execFileSync(
      'openssl',
      [
        ...['req', '-x509', '-nodes', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-days', '2'],
        ...['-subj', '/CN=ptp', '-addext', 'subjectAltName=IP:127.0.0.1', '-keyout', key, '-out', cert],
      ],
      { stdio: 'ignore' },
    );
    const env = { PTP_MODEL: models, PTP_TLS_CERT_FILE: cert, PTP_TLS_KEY_FILE: key, PTP_TLS_CA_FILE: cert };
    const node = async (kind: 'verifier' | 'drafter'): Promise<Node> => {
      const port = await freePort();
      const member = new Member(kind, { ...env, PTP_LISTEN: `127.0.0.1:${port}`, PTP_DRAIN_SECONDS: '1' });
      member.start();
      return { member, port, network: await BadNetwork.start(port) };
    };
    const nodes = async (kind: 'verifier' | 'drafter', count: number) => {
      const list: Node[] = [];
      for (let i = 0; i < count; i++) list.push(await node(kind));
      return list;
    };
    const [verifierNodes, drafterNodes] = [await nodes('verifier', verifiers), await nodes('drafter', drafters)];
    const addresses = (list: readonly Node[]) => list.map(({ network }) => `127.0.0.1:${network.port}`).join(',');
    const port = await freePort();
    const gateway = new Member('gateway', {
      ...env,
      PTP_LISTEN: `127.0.0.1:${port}`,
      PTP_GRPC_LISTEN: `127.0.0.1:${await freePort()}`,
      PTP_VERIFIERS: addresses(verifierNodes),
      PTP_DRAFTERS: addresses(drafterNodes),
      PTP_DRAFT_TIMEOUT_SECONDS: '0.3',
      PTP_VERIFY_TIMEOUT_SECONDS: '1.5',
      PTP_DRAFT_MODE: 'overlap',
    });
    gateway.start();
    const url = `http://127.0.0.1:${port}`;
    const parts = { url, gateway, verifiers: verifierNodes, drafters: drafterNodes };
    const fleet = new Fleet(parts, new Tls({ cert, key, ca: cert }), folder);
    await fleet.ready();
    return fleet;
  }

  async ready(): Promise<void> {
    const until = performance.now() + START_TIMEOUT_MS;
    while (performance.now() < until) {
      const answer = await fetch(`${this.url}/readyz`).then(
        (response) => response.json(),
        () => undefined,
      );
      if (answer?.verifier && answer.drafter) return;
      await sleep(100);
    }
    const answer = await fetch(`${this.url}/readyz`).then((response) => response.text(), String);
    throw new Error(`the fleet was not ready within ${START_TIMEOUT_MS / 1000} s: ${answer}`);
  }

  /** Number of open sequences on all verifiers, queried directly and not through the proxies. */
  async openSequences(): Promise<number> {
    let open = 0;
    for (const { port } of this.verifiers) {
      const client = connect(VerifierService, `127.0.0.1:${port}`, { tls: this.#tls, apart: true });
      open += (await client.getTarget({}, { deadlineMs: 5000 })).openSequences;
      client.close();
    }
    return open;
  }

  async stop(): Promise<void> {
    await this.gateway.end('SIGKILL');
    for (const { member, network } of [...this.verifiers, ...this.drafters]) {
      member.signal('SIGCONT');
      await member.end('SIGKILL');
      network.close();
    }
    await rm(this.#folder, { recursive: true, force: true });
  }
}

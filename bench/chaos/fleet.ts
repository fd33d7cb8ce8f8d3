import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { getCACertificates, setDefaultCACertificates } from 'node:tls';
import { Tls } from '@ptp/protocol/credentials';
import { BadNetwork } from './bad-network.ts';
import { Authority, type Identity } from './certificates.ts';
import { newTally } from './clients.ts';
import { freePort } from './free-port.ts';
import { type LoopDelays, readLoopDelay } from './loop-delay.ts';
import { Member, ROOT, yieldCores } from './member.ts';
import { NAMES_FILE, Names } from './names.ts';
import { type Node, openSequences, stopNode } from './node.ts';

const START_TIMEOUT_MS = 180_000;
/** Recovery time of the gateway: longer than all verifiers can be down at once, even on a busy machine. */
const RECOVERY_SECONDS = '120';
/** Time in milliseconds for the streams of a removed replica to end. */
const LEAVE_MS = 60_000;
/** Number of queries for open sequences after which a replica without any counts as unused. */
const USE_CHECKS = 20;

type Service = 'verifier' | 'drafter';
const nameOf = (kind: Service) => `${kind}s.ptp.test`;

export interface FleetOptions {
  readonly models: string;
  readonly verifiers: number;
  readonly drafters: number;
  /** Time in seconds after which the gateway gives up a verifier that does not answer. */
  readonly verifyTimeout: number;
}

/** A process, and a port on which it listens. */
export type Endpoint = Pick<Node, 'member' | 'port'>;

/** A verifier that was added, and the number of right answers before. */
export interface Replica {
  readonly node: Node;
  readonly answers: number;
}

/** A gateway, verifiers and drafters. Each is a separate process. */
export class Fleet {
  readonly verifiers: Node[] = [];
  readonly drafters: Node[] = [];
  /** Descriptions of broken promises that faults have observed. */
  readonly broken: string[] = [];
  /** Descriptions of unexpected ends of processes. */
  readonly crashes: string[] = [];
  /** Outcomes of the clients' requests. */
  readonly tally = newTally();
  /** Number of added replicas, number of these that got streams, and number of right answers while they served. */
  readonly replicas = { added: 0, used: 0, answers: 0 };
  readonly authority: Authority;
  readonly gateway: Member;
  readonly port: number;
  readonly grpcPort: number;
  /** Credentials of clients that call the services directly. */
  readonly tls: Tls;
  readonly #models: string;
  readonly #verifyTimeout: number;
  readonly #folder: string;
  readonly #names: Names;
  readonly #ports: Readonly<Record<Service, number>>;
  /** Idle process. Its event loop is the reference for the gateway's. */
  readonly #idle: Member;
  readonly #onCrash = (problem: string) => void this.crashes.push(problem);
  #addresses = 0;

  private constructor(folder: string, { models, verifyTimeout }: FleetOptions, ports: readonly number[]) {
    const [port = 0, grpcPort = 0, verifier = 0, drafter = 0] = ports;
    this.#folder = folder;
    this.#models = models;
    this.#verifyTimeout = verifyTimeout;
    this.#ports = { verifier, drafter };
    this.port = port;
    this.grpcPort = grpcPort;
    this.authority = new Authority(folder);
    this.tls = new Tls(this.authority.issue('gateway'));
    this.#names = new Names(join(folder, 'names.json'));
    this.#idle = new Member({
      kind: 'idle',
      env: {},
      command: [join(ROOT, 'bench/chaos/idle.ts'), this.#delayOf('idle')],
    });
    this.gateway = this.#gateway();
  }

  /**
   * Starts services that communicate over TCP with mutual TLS. Every verifier and drafter is behind a bad network, and
   * every second one has its engine in another process. The gateway finds them by DNS names.
   */
  static async start(options: FleetOptions): Promise<Fleet> {
    const { verifiers, drafters } = options;
    const folder = await mkdtemp(join(tmpdir(), 'ptp-chaos-'));
    const ports = [await freePort(), await freePort(), await freePort(), await freePort()];
    const fleet = new Fleet(folder, options, ports);
    // Clients in this process trust the gateway.
    setDefaultCACertificates([...getCACertificates('default'), fleet.authority.pem]);
    try {
      while (fleet.verifiers.length < verifiers) fleet.verifiers.push(await fleet.#startNode('verifier'));
      while (fleet.drafters.length < drafters) fleet.drafters.push(await fleet.#startNode('drafter'));
      fleet.#idle.start();
      fleet.gateway.start();
      await fleet.ready();
      yieldCores(process);
      return fleet;
    } catch (error) {
      await fleet.stop();
      throw error;
    }
  }

  get url(): string {
    return `https://127.0.0.1:${this.port}`;
  }

  /** Endpoints of all servers: the gateway's two APIs, and the services. */
  get endpoints(): Endpoint[] {
    const { gateway: member, port, grpcPort } = this;
    return [{ member, port }, { member, port: grpcPort }, ...this.verifiers, ...this.drafters];
  }

  /** Resolves when the gateway reaches a verifier and a drafter. */
  async ready(): Promise<void> {
    let answer: unknown;
    for (const until = performance.now() + START_TIMEOUT_MS; performance.now() < until; await sleep(100)) {
      const probe = await fetch(`${this.url}/readyz`).then((response) => response.json(), String);
      if (probe.verifier && probe.drafter) return;
      answer = probe;
    }
    throw new Error(`the fleet was not ready within ${START_TIMEOUT_MS / 1000} s: ${JSON.stringify(answer)}`);
  }

  /** Returns the number of open sequences on all verifiers. */
  async openSequences(): Promise<number> {
    const open = await Promise.all(this.verifiers.map((node) => openSequences(node, this.tls)));
    return open.reduce((sum, count) => sum + count, 0);
  }

  /** Adds a verifier, and waits until it serves. @returns the verifier, and the number of right answers until then */
  async addVerifier(): Promise<Replica> {
    const node = await this.#startNode('verifier');
    for (const until = performance.now() + START_TIMEOUT_MS; performance.now() < until; await sleep(200)) {
      if ((await this.#openAt(node)) !== undefined) return { node, answers: this.tally.right };
    }
    await stopNode(node);
    throw new Error(`the added verifier did not serve within ${START_TIMEOUT_MS / 1000} s`);
  }

  /** Takes a verifier out of DNS, and stops it once its streams have ended. @throws Error if they do not end */
  async removeVerifier({ node, answers }: Replica): Promise<void> {
    this.replicas.added++;
    for (let attempt = 0; attempt < USE_CHECKS; attempt++) {
      if (await this.#openAt(node)) {
        this.replicas.used++;
        break;
      }
      await sleep(200);
    }
    this.replicas.answers += this.tally.right - answers;
    node.registration.remove();
    let open: number | undefined;
    for (const until = performance.now() + LEAVE_MS; open !== 0 && performance.now() < until; await sleep(200)) {
      open = await this.#openAt(node);
    }
    await stopNode(node);
    if (open === undefined) throw new Error('the removed verifier did not answer');
    if (open > 0) throw new Error(`the removed verifier still had ${open} sequences after ${LEAVE_MS / 1000} s`);
  }

  /** Starts another measurement of the delays of event loops. */
  resetDelays(): void {
    for (const member of [this.gateway, this.#idle]) member.signal('SIGUSR2');
  }

  /** Delays of the event loops of the gateway and of the idle process. */
  get delays(): { readonly gateway: LoopDelays; readonly idle: LoopDelays } {
    return { gateway: readLoopDelay(this.#delayOf('gateway')), idle: readLoopDelay(this.#delayOf('idle')) };
  }

  async stop(): Promise<void> {
    await this.gateway.end('SIGKILL');
    await this.#idle.end('SIGKILL');
    for (const node of [...this.verifiers, ...this.drafters]) await stopNode(node);
    await rm(this.#folder, { recursive: true, force: true });
  }

  /** Returns the number of open sequences of a verifier, or undefined if it does not answer. */
  #openAt(node: Node): Promise<number | undefined> {
    return openSequences(node, this.tls).catch(() => undefined);
  }

  #gateway(): Member {
    const identity = this.authority.issue('gateway');
    const env = {
      ...tlsSettings(identity),
      PTP_MODEL: this.#models,
      PTP_HTTP_TLS_CERT_FILE: identity.cert,
      PTP_HTTP_TLS_KEY_FILE: identity.key,
      PTP_LISTEN: `127.0.0.1:${this.port}`,
      PTP_GRPC_LISTEN: `127.0.0.1:${this.grpcPort}`,
      PTP_VERIFIERS: `${nameOf('verifier')}:${this.#ports.verifier}`,
      PTP_DRAFTERS: `${nameOf('drafter')}:${this.#ports.drafter}`,
      PTP_DRAFT_TIMEOUT_SECONDS: '0.3',
      PTP_VERIFY_TIMEOUT_SECONDS: String(this.#verifyTimeout),
      PTP_RECOVERY_SECONDS: RECOVERY_SECONDS,
      PTP_DRAFT_MODE: 'overlap',
      [NAMES_FILE]: this.#names.path,
      CHAOS_DELAY_FILE: this.#delayOf('gateway'),
    };
    const preload = ['--import', join(ROOT, 'bench', 'chaos', 'in-gateway.ts')];
    const command = [...preload, join(ROOT, 'gateway', 'src', 'main.ts')];
    return new Member({ kind: 'gateway', env, command, identity, onCrash: this.#onCrash });
  }

  async #startNode(kind: Service): Promise<Node> {
    const [port, index] = [await freePort(), this.#addresses++];
    const engine = index % 2 === 1 ? this.#engine(kind, index) : undefined;
    const names = [kind, nameOf(kind)];
    const identity = this.authority.issue(...names);
    const env = {
      ...tlsSettings(identity),
      PTP_MODEL: this.#models,
      PTP_LISTEN: `127.0.0.1:${port}`,
      PTP_DRAIN_SECONDS: '1',
      PTP_ENGINE: engine?.address,
    };
    const member = new Member({ kind, env, identity, engine: engine?.member, onCrash: this.#onCrash });
    member.start();
    const host = `127.0.1.${index + 1}`;
    const network = await BadNetwork.start({ port, host: '127.0.0.1' }, { port: this.#ports[kind], host });
    const registration = {
      add: () => this.#names.add(nameOf(kind), host),
      remove: () => this.#names.remove(nameOf(kind), host),
    };
    registration.add();
    const { authority } = this;
    return { member, port, network, authority, names, registration, ...(engine && { engine: engine.member }) };
  }

  #engine(kind: Service, index: number): { readonly member: Member; readonly address: string } {
    const address = `unix:${join(this.#folder, `engine-${index}.sock`)}`;
    const model = kind === 'verifier' ? 'target' : 'drafter';
    const command = [join(ROOT, 'bench', 'engine-worker.ts'), model, address, this.#models];
    const member = new Member({ kind: 'engine', env: {}, command, onCrash: this.#onCrash });
    member.start();
    return { member, address };
  }

  #delayOf(process: string): string {
    return join(this.#folder, `${process}-delay.json`);
  }
}

function tlsSettings({ cert, key, ca }: Identity) {
  return { PTP_TLS_CERT_FILE: cert, PTP_TLS_KEY_FILE: key, PTP_TLS_CA_FILE: ca };
}

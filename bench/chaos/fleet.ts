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

type Kind = 'verifier' | 'drafter' | 'gateway' | 'engine';

/** One process of the fleet. It is restarted when it ends unexpectedly. */
export class Member {
  readonly kind: Kind;
  readonly #env: NodeJS.ProcessEnv;
  readonly #command: readonly string[];
  #child: ChildProcess | undefined;
  #ending = false;
  #restart: NodeJS.Timeout | undefined;

  /** @param command script and arguments. Default: the main script of the service */
  constructor(kind: Kind, env: NodeJS.ProcessEnv, command: readonly string[] = [join(ROOT, kind, 'src', 'main.ts')]) {
    this.kind = kind;
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
      if (this.#child === child && !this.#ending) this.#restart = setTimeout(() => this.start(), 500);
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

/** A service and the bad network in front of it. */
export interface Node {
  readonly member: Member;
  /** Process that runs the model, if it is not the service. */
  readonly engine?: Member;
  readonly network: BadNetwork;
  readonly port: number;
}

/** A gateway, verifiers and drafters. Each is a separate process. */
export type Fleet = Awaited<ReturnType<typeof startFleet>>;

/**
 * Starts services that communicate over TCP with mutual TLS. Every verifier and drafter is behind a bad network, and
 * every second one has its engine in another process.
 */
export async function startFleet(models: string, counts: { verifiers: number; drafters: number }) {
  const folder = await mkdtemp(join(tmpdir(), 'ptp-chaos-'));
  const tls = createCertificate(folder);
  const env = {
    PTP_MODEL: models,
    PTP_TLS_CERT_FILE: tls.cert,
    PTP_TLS_KEY_FILE: tls.key,
    PTP_TLS_CA_FILE: tls.cert,
  };
  const engineOf = (kind: 'verifier' | 'drafter', path: string) => {
    const [address, model] = [`unix:${path}`, kind === 'verifier' ? 'target' : 'drafter'];
    const member = new Member('engine', {}, [join(ROOT, 'bench', 'engine-worker.ts'), model, address, models]);
    member.start();
    return { member, address };
  };
  const startNodes = async (kind: 'verifier' | 'drafter', count: number) => {
    const nodes: Node[] = [];
    while (nodes.length < count) {
      const port = await freePort();
      const engine = nodes.length % 2 === 1 ? engineOf(kind, join(folder, `${kind}-${nodes.length}.sock`)) : undefined;
      const settings = { PTP_LISTEN: `127.0.0.1:${port}`, PTP_DRAIN_SECONDS: '1', PTP_ENGINE: engine?.address };
      const member = new Member(kind, { ...env, ...settings });
      member.start();
      const network = await BadNetwork.start({ port, host: '127.0.0.1' });
      nodes.push({ member, port, network, ...(engine && { engine: engine.member }) });
    }
    return nodes;
  };
  const addressesOf = (nodes: readonly Node[]) => nodes.map(({ network }) => `127.0.0.1:${network.port}`).join(',');
  const verifiers = await startNodes('verifier', counts.verifiers);
  const drafters = await startNodes('drafter', counts.drafters);
  const port = await freePort();
  const gateway = new Member('gateway', {
    ...env,
    PTP_LISTEN: `127.0.0.1:${port}`,
    PTP_GRPC_LISTEN: `127.0.0.1:${await freePort()}`,
    PTP_VERIFIERS: addressesOf(verifiers),
    PTP_DRAFTERS: addressesOf(drafters),
    PTP_DRAFT_TIMEOUT_SECONDS: '0.3',
    PTP_VERIFY_TIMEOUT_SECONDS: '1.5',
    PTP_DRAFT_MODE: 'overlap',
  });
  gateway.start();
  const url = `http://127.0.0.1:${port}`;
  const clientTls = new Tls({ ...tls, ca: tls.cert });
  const fleet = {
    url,
    gateway,
    verifiers,
    drafters,
    /** Resolves when the gateway reaches a verifier and a drafter. */
    ready: () => untilReady(url),
    /** Returns the number of open sequences on all verifiers, queried directly and not through the proxies. */
    async openSequences() {
      let open = 0;
      for (const { port } of verifiers) {
        const client = connect(VerifierService, `127.0.0.1:${port}`, { tls: clientTls, apart: true });
        open += (await client.getTarget({}, { deadlineMs: 5000 })).openSequences;
        client.close();
      }
      return open;
    },
    async stop() {
      await gateway.end('SIGKILL');
      for (const { member, engine, network } of [...verifiers, ...drafters]) {
        for (const process of [member, engine]) {
          process?.signal('SIGCONT');
          await process?.end('SIGKILL');
        }
        network.close();
      }
      await rm(folder, { recursive: true, force: true });
    },
  };
  try {
    await fleet.ready();
  } catch (error) {
    await fleet.stop();
    throw error;
  }
  return fleet;
}

/** Creates a self-signed certificate, which every service presents and trusts. */
function createCertificate(folder: string): { readonly cert: string; readonly key: string } {
  const [cert, key] = [join(folder, 'fleet.crt'), join(folder, 'fleet.key')];
  const options = ['req', '-x509', '-nodes', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-days', '2'];
  const subject = ['-subj', '/CN=ptp', '-addext', 'subjectAltName=IP:127.0.0.1'];
  execFileSync('openssl', [...options, ...subject, '-keyout', key, '-out', cert], { stdio: 'ignore' });
  return { cert, key };
}

async function untilReady(url: string): Promise<void> {
  let answer: unknown;
  for (const until = performance.now() + START_TIMEOUT_MS; performance.now() < until; await sleep(100)) {
    const probe = await fetch(`${url}/readyz`).then((response) => response.json(), String);
    if (probe.verifier && probe.drafter) return;
    answer = probe;
  }
  throw new Error(`the fleet was not ready within ${START_TIMEOUT_MS / 1000} s: ${JSON.stringify(answer)}`);
}

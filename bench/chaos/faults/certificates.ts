import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Authority, Identity } from '../certificates.ts';
import { servedCertificate } from '../handshake.ts';
import type { Member } from '../member.ts';
import type { FleetFault, NodeFault } from './fault.ts';

const name = 'certificate renewed before its key';
const lasts = [500, 6000] as const;
/** Time in milliseconds in which a process that was restarted before must serve. */
const START_MS = 60_000;
/** Time in milliseconds after SIGHUP in which a process must present its new certificate. */
const RELOAD_MS = 10_000;

/** A process with a certificate, and the ports on which the process presents this certificate. */
interface Server {
  readonly member: Member;
  readonly authority: Authority;
  readonly names: readonly string[];
  readonly ports: readonly number[];
}

/** Replaces the certificate of a server that is up: SIGHUP would end a process that is still starting. */
async function renewCertificate(server: Server): Promise<() => void> {
  const { member, authority, names } = server;
  await presentsItsCertificate(server, START_MS);
  const finish = authority.renew(member.identity as Identity, ...names);
  member.signal('SIGHUP');
  return finish;
}

async function renewKey(server: Server, finish: () => void): Promise<void> {
  finish();
  server.member.signal('SIGHUP');
  await presentsItsCertificate(server, RELOAD_MS);
}

/** Waits until a server presents the certificate in its file. @throws Error after `timeoutMs` */
async function presentsItsCertificate({ member, ports }: Server, timeoutMs: number): Promise<void> {
  const { cert } = member.identity as Identity;
  const { fingerprint256 } = new X509Certificate(readFileSync(cert));
  const until = performance.now() + timeoutMs;
  for (const port of ports) {
    for (; (await servedCertificate(port))?.fingerprint256 !== fingerprint256; await sleep(100)) {
      if (performance.now() < until) continue;
      throw new Error(`the ${member.kind} did not present the certificate in its file within ${timeoutMs / 1000} s`);
    }
  }
}

const nodeServer = ({ port, ...node }: Parameters<NodeFault['start']>[0]): Server => ({ ...node, ports: [port] });
const gatewayServer = ({ gateway, authority, port, grpcPort }: Parameters<FleetFault['start']>[0]): Server => ({
  member: gateway,
  authority,
  names: ['gateway'],
  ports: [port, grpcPort],
});

export const halfRenewed: NodeFault<() => void> = {
  name,
  lasts,
  start: (node) => renewCertificate(nodeServer(node)),
  stop: (node, finish) => renewKey(nodeServer(node), finish),
};

export const gatewayHalfRenewed: FleetFault<() => void> = {
  name: `gateway's ${name}`,
  lasts,
  start: (fleet) => renewCertificate(gatewayServer(fleet)),
  stop: (fleet, finish) => renewKey(gatewayServer(fleet), finish),
};

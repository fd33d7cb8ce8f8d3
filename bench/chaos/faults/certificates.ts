import { setTimeout as sleep } from 'node:timers/promises';
import type { Authority, Identity } from '../certificates.ts';
import type { Member } from '../member.ts';
import type { FleetFault, NodeFault } from './fault.ts';

const name = 'certificate renewed before its key';
const lasts = [500, 6000] as const;
/** Time in milliseconds in which a process reads its files after SIGHUP. */
const RELOAD_MS = 300;

function renewCertificate(member: Member, authority: Authority, names: readonly string[]): () => void {
  const finish = authority.renew(member.identity as Identity, ...names);
  member.signal('SIGHUP');
  return finish;
}

async function renewKey(member: Member, finish: () => void): Promise<void> {
  finish();
  member.signal('SIGHUP');
  await sleep(RELOAD_MS);
}

export const halfRenewed: NodeFault<() => void> = {
  name,
  lasts,
  start: ({ member, authority, names }) => renewCertificate(member, authority, names),
  stop: ({ member }, finish) => renewKey(member, finish),
};

export const gatewayHalfRenewed: FleetFault<() => void> = {
  name: `gateway's ${name}`,
  lasts,
  start: ({ gateway, authority }) => renewCertificate(gateway, authority, ['gateway']),
  stop: ({ gateway }, finish) => renewKey(gateway, finish),
};

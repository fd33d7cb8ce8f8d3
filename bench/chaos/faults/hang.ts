import type { Member } from '../member.ts';
import type { EngineFault, NodeFault } from './fault.ts';

const lasts = [200, 9000] as const;
const start = (member: Member) => member.signal('SIGSTOP');
const stop = (member: Member) => member.signal('SIGCONT');

export const hung: NodeFault = {
  name: 'hung for a while',
  lasts,
  start: ({ member }) => start(member),
  stop: ({ member }) => stop(member),
};

export const engineHung: EngineFault = { name: 'engine hung for a while', lasts, start, stop };

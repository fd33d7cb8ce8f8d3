import type { Member } from '../member.ts';
import type { EngineFault, NodeFault } from './fault.ts';

const ended = (signal: NodeJS.Signals) => ({
  start: (member: Member) => member.end(signal),
  stop: (member: Member) => member.start(),
});
const [kill, terminate] = [ended('SIGKILL'), ended('SIGTERM')];

export const killed: NodeFault = {
  name: 'killed, and started again',
  lasts: [0, 1500],
  start: ({ member }) => kill.start(member),
  stop: ({ member }) => kill.stop(member),
};

export const stopped: NodeFault = {
  name: 'stopped in order, and started again',
  lasts: [0, 500],
  start: ({ member }) => terminate.start(member),
  stop: ({ member }) => terminate.stop(member),
};

/** The service ends when its engine has died. */
export const engineKilled: EngineFault = { name: 'engine killed, and started again', lasts: [0, 1500], ...kill };

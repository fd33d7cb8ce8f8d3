import type { Random } from '../../random.ts';
import type { Fleet } from '../fleet.ts';
import type { Member } from '../member.ts';
import type { Node } from '../node.ts';

/** A fault of one part of the fleet. A part has at most one fault at a time. */
export interface Fault<Part, State = unknown> {
  readonly name: string;
  /** Shortest and longest time in milliseconds between start and stop. */
  readonly lasts: readonly [number, number];
  start(part: Part, random: Random): Promise<State> | State;
  /** Undoes the fault. @param state result of `start` */
  stop(part: Part, state: State): Promise<void> | void;
}

export type NodeFault<State = unknown> = Fault<Node, State>;
export type EngineFault<State = unknown> = Fault<Member, State>;
export type FleetFault<State = unknown> = Fault<Fleet, State>;

/** Duration of faults that end as soon as they have started. */
export const AT_ONCE = [0, 0] as const;

import { lineChart } from '../plot.ts';
import type { Fleet, Member } from './fleet.ts';

/** A sample of the memory that the fleet uses. */
export interface Held {
  /** Duration since the start, minutes. */
  readonly minutes: number;
  /** Memory and open files of each process. */
  readonly by: Readonly<Record<string, Member['usage']>>;
}

export function memoryOf({ gateway, verifiers, drafters }: Fleet): Held['by'] {
  return {
    gateway: gateway.usage,
    ...Object.fromEntries(verifiers.map(({ member }, i) => [`verifier ${i}`, member.usage])),
    ...Object.fromEntries(drafters.map(({ member }, i) => [`drafter ${i}`, member.usage])),
  };
}

export function memoryChart(held: readonly Held[]): Promise<string> {
  const series = Object.keys(held[0]?.by ?? {}).map((name) => ({
    name,
    points: held.map(({ minutes, by }): [number, number] => [minutes, by[name]?.mb ?? 0]),
  }));
  const [x, y] = [{ title: 'minutes' }, { title: 'resident memory, MB' }];
  return lineChart([{ title: 'Memory under load', x, y, series }], 'Resident memory of the processes during a soak');
}

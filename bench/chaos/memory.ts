import { lineChart } from '../plot.ts';
import type { Fleet, Member } from './fleet.ts';

/** Resident memory in MB, and open files and sockets. */
interface Usage {
  readonly mb: number;
  readonly handles: number;
}

export interface Held {
  /** Time since the start. */
  readonly minutes: number;
  /** Memory and open files of each process. */
  readonly by: Readonly<Record<string, Usage>>;
}

export function memoryOf({ gateway, verifiers, drafters }: Fleet): Held['by'] {
  const usage = ({ memory, handles }: Member): Usage => ({ mb: Math.round(memory / 1e6), handles });
  return {
    gateway: usage(gateway),
    ...Object.fromEntries(verifiers.map(({ member }, i) => [`verifier ${i}`, usage(member)])),
    ...Object.fromEntries(drafters.map(({ member }, i) => [`drafter ${i}`, usage(member)])),
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

import { lineChart } from '../plot.ts';
import type { Fleet } from './fleet.ts';
import type { Member } from './member.ts';

/** A sample of the memory and open files of the fleet. */
export interface Usage {
  /** Duration since the start in minutes. */
  readonly minutes: number;
  readonly by: Readonly<Record<string, Member['usage']>>;
}

export function usageOf({ gateway, verifiers, drafters }: Fleet): Usage['by'] {
  return {
    gateway: gateway.usage,
    ...Object.fromEntries(verifiers.map(({ member }, i) => [`verifier ${i}`, member.usage])),
    ...Object.fromEntries(drafters.map(({ member }, i) => [`drafter ${i}`, member.usage])),
  };
}

export function memoryChart(samples: readonly Usage[]): Promise<string> {
  const series = Object.keys(samples[0]?.by ?? {}).map((name) => ({
    name,
    points: samples.map(({ minutes, by }): [number, number] => [minutes, by[name]?.mb ?? 0]),
  }));
  const [x, y] = [{ title: 'minutes' }, { title: 'resident memory, MB' }];
  return lineChart([{ title: 'Memory under load', x, y, series }], 'Resident memory of the processes during a soak');
}

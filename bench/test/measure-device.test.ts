import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { measureDevice } from '../gpu/measure-device.ts';

test('the comparison of processors measures a target and its drafter', async () => {
  const tiny = fileURLToPath(new URL('../../test/models/tiny', import.meta.url));
  const { picks, logProbabilities, ...report } = await measureDevice(tiny, 'cpu', 1);
  expect(report).toMatchObject({ device: 'cpu', batchInvariant: true, comparedRows: 360, slots: 4 });
  expect([picks.length, logProbabilities.length]).toEqual([128, 128]);
  expect(logProbabilities.every((value) => value < 0)).toBe(true);
  for (const time of [report.startMs, report.verifyMs, report.verifyAllMs, report.draftMs]) {
    expect(time).toBeGreaterThan(0);
  }
}, 60_000);

import { readFile } from 'node:fs/promises';
import { SETTING_NAMES } from '@ptp/service-kit/setting-names';
import { expect, test } from 'vitest';
import { PAGE, settingsTable, withTable } from '../scripts/settings-table.ts';

test('docs/settings.md is up to date (npm run settings)', async () => {
  const page = await readFile(PAGE, 'utf8');
  expect(page).toBe(withTable(page));
  const names = new Set([...settingsTable().matchAll(/^\*\*`(PTP_\w+)`/gm)].map(([, name]) => name));
  expect([...names].sort()).toEqual([...SETTING_NAMES].sort());
});

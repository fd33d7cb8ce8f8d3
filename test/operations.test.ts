import { readFile } from 'node:fs/promises';
import { expect, test } from 'vitest';
import { PAGE, settingsTable, withTable } from '../scripts/settings-table.ts';

test('docs/settings.md has the settings as they are (npm run settings writes them)', async () => {
  const page = await readFile(PAGE, 'utf8');
  expect(page).toBe(withTable(page));
  expect(settingsTable().split('\n\n').length).toBeGreaterThan(25);
});

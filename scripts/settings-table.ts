/** `npm run settings`: writes the table of all settings into docs/operations.md, between its two marks. */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describeSettings, type Setting } from '@ptp/service-kit/settings';
import { drafterSettings } from '../drafter/src/settings.ts';
import { gatewaySettings } from '../gateway/src/settings.ts';
import { verifierSettings } from '../verifier/src/settings.ts';

export const PAGE = join(import.meta.dirname, '..', 'docs', 'operations.md');
const [BEGIN, END] = ['<!-- settings: made by `npm run settings` -->', '<!-- end of settings -->'];

const services = { gateway: gatewaySettings, verifier: verifierSettings, drafter: drafterSettings };

/** One row for each setting, with the services that read it. */
export function settingsTable(): string {
  const rows = new Map<string, { setting: Setting; readers: string[] }>();
  for (const [service, table] of Object.entries(services)) {
    for (const setting of Object.values<Setting>(table)) {
      // a service's own address is where the gateway looks for it
      const row = rows.get(setting.name) ?? { setting, readers: [] };
      row.readers.push(service);
      rows.set(setting.name, row);
    }
  }
  const [head = '', rule = ''] = describeSettings({}).split('\n');
  const lines = [...rows.values()].map(({ setting, readers }) => {
    const row = describeSettings({ setting }).split('\n')[2] ?? '';
    return `${row} ${readers.join(', ')} |`;
  });
  return [`${head} read by |`, `${rule} --- |`, ...lines].join('\n');
}

/** The page with today's table. */
export function withTable(page: string): string {
  const [before, rest] = page.split(BEGIN);
  const after = rest?.split(END)[1];
  if (before === undefined || after === undefined) throw new Error(`docs/operations.md must have ${BEGIN} and ${END}`);
  return `${before}${BEGIN}\n\n${settingsTable()}\n\n${END}${after}`;
}

if (import.meta.main) await writeFile(PAGE, withTable(await readFile(PAGE, 'utf8')));

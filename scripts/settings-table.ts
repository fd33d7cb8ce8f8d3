/** `npm run settings`: writes all settings into docs/settings.md, between its two markers. */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Setting } from '@ptp/service-kit/settings';
import { drafterSettings } from '../drafter/src/settings.ts';
import { gatewaySettings } from '../gateway/src/settings.ts';
import { verifierSettings } from '../verifier/src/settings.ts';

export const PAGE = join(import.meta.dirname, '..', 'docs', 'settings.md');
const [BEGIN, END] = ['<!-- settings: written by `npm run settings` -->', '<!-- end of settings -->'];
const WIDTH = 114;

const services = { gateway: gatewaySettings, verifier: verifierSettings, drafter: drafterSettings };

/** Returns one paragraph per setting, with the services that read it. */
export function settingsTable(): string {
  const entries = new Map<string, { setting: Setting; readers: string[] }>();
  for (const [service, table] of Object.entries(services)) {
    for (const setting of Object.values<Setting>(table)) {
      const key = [setting.name, setting.default, setting.doc].join();
      const entry = entries.get(key) ?? { setting, readers: [] };
      entry.readers.push(service);
      entries.set(key, entry);
    }
  }
  return [...entries.values()].map(({ setting, readers }) => paragraph(setting, readers)).join('\n\n');
}

function paragraph(setting: Setting, readers: readonly string[]): string {
  const preset = setting.default === '' ? '' : `, default \`${setting.default}\``;
  const head = `**\`${setting.name}\`** (${readers.join(', ')}): ${setting.type.expected}${preset}.`;
  return [`${wrapped(head).join('\n')}<br>`, ...wrapped(setting.doc)].join('\n');
}

/** Wraps text to lines of at most `WIDTH` characters. */
function wrapped(text: string): string[] {
  const lines: string[] = [];
  for (const word of text.split(' ')) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + 1 + word.length <= WIDTH) lines[lines.length - 1] = `${last} ${word}`;
    else lines.push(word);
  }
  return lines;
}

/** Returns the page with the current settings. */
export function withTable(page: string): string {
  const [before, rest] = page.split(BEGIN);
  const after = rest?.split(END)[1];
  if (before === undefined || after === undefined) throw new Error(`docs/settings.md must have ${BEGIN} and ${END}`);
  return `${before}${BEGIN}\n\n${settingsTable()}\n\n${END}${after}`;
}

if (import.meta.main) await writeFile(PAGE, withTable(await readFile(PAGE, 'utf8')));

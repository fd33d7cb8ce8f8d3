import { existsSync } from 'node:fs';
import { type Browser, chromium } from 'playwright-core';

const CANDIDATES = [process.env.PTP_CHROMIUM, '/usr/bin/chromium', '/usr/bin/google-chrome'];

/** Path of the browser named by PTP_CHROMIUM or of an installed browser; undefined if neither exists. */
export const chromiumPath = CANDIDATES.find((path) => path && existsSync(path));

export function launch(): Promise<Browser> {
  if (!chromiumPath) throw new Error('no Chromium found: install it, or set PTP_CHROMIUM to its path');
  const args = ['--no-sandbox', '--disable-background-networking'];
  return chromium.launch({ executablePath: chromiumPath, args });
}

import { existsSync } from 'node:fs';
import { type Browser, chromium } from 'playwright-core';

const CANDIDATES = [process.env.PTP_CHROMIUM, '/usr/bin/chromium', '/usr/bin/google-chrome'];

/** Path of the browser that PTP_CHROMIUM names, or of an installed browser. Undefined if neither exists. */
export const chromiumPath = CANDIDATES.find((path) => path && existsSync(path));

export function launch(): Promise<Browser> {
  if (!chromiumPath) throw new Error('no Chromium found: install it, or set PTP_CHROMIUM to its path');
  const args = ['--no-sandbox', '--disable-background-networking'];
  return chromium.launch({ executablePath: chromiumPath, args });
}

import { existsSync } from 'node:fs';
import { type Browser, chromium } from 'playwright-core';

const CANDIDATES = [process.env.PTP_CHROMIUM, '/usr/bin/chromium', '/usr/bin/google-chrome'];

/** A browser of this machine; undefined where none is found, which PTP_CHROMIUM can name. */
export const chromiumPath = CANDIDATES.find((path) => path && existsSync(path));

export function launch(): Promise<Browser> {
  if (!chromiumPath) throw new Error('no Chromium found: set PTP_CHROMIUM');
  const args = ['--no-sandbox', '--disable-background-networking'];
  return chromium.launch({ executablePath: chromiumPath, args });
}

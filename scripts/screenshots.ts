/** `npm run screenshots`: pictures of the page for the README, from the embedded pair. Needs Chromium (PTP_CHROMIUM). */
import { join } from 'node:path';
import type { BrowserContextOptions, Page } from 'playwright-core';
import { launch, servePage } from '../test/browser.ts';

const OUT = join(import.meta.dirname, '..', 'docs', 'screenshots');
const DESKTOP = { width: 1120, height: 1000 };

const server = await servePage(join(import.meta.dirname, '..', 'models', 'default'));
const browser = await launch();
try {
  await picture('race', { viewport: DESKTOP }, race);
  await picture('race-dark', { viewport: DESKTOP, colorScheme: 'dark' }, race);
  await picture('mid-stream', { viewport: DESKTOP }, midStream);
  await picture('phone', { viewport: { width: 390, height: 800 } }, whole);
} finally {
  await browser.close();
  await server.close();
}

async function picture(
  name: string,
  options: BrowserContextOptions,
  use: (page: Page) => Promise<void>,
): Promise<void> {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  await page.goto(server.url);
  await page.getByText('Serving').waitFor();
  await use(page);
  await page.screenshot({ path: join(OUT, `${name}.png`), fullPage: true });
  await context.close();
  console.log(`docs/screenshots/${name}.png`);
}

async function race(page: Page): Promise<void> {
  await page.getByRole('button', { name: 'Race with and without drafter' }).click();
  await page.getByRole('status').filter({ hasText: 'Identical' }).waitFor();
  await page.waitForTimeout(2000); // the last rejected tokens have faded
}

async function midStream(page: Page): Promise<void> {
  await page.getByRole('button', { name: 'Generate' }).click();
  await page.locator('.text .token').nth(80).waitFor();
}

async function whole(page: Page): Promise<void> {
  await page.getByRole('button', { name: 'Generate' }).click();
  await page.getByRole('status').filter({ hasText: 'tokens.' }).waitFor();
  await page.waitForTimeout(2000);
}

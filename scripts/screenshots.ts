/**
 * `npm run screenshots`: takes screenshots of the page for the documentation, with the bundled pair. Requires Chromium
 * (PTP_CHROMIUM).
 */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { BrowserContextOptions, Page } from 'playwright-core';
import { launch } from '../test/browser.ts';

const OUT = join(import.meta.dirname, '..', 'docs', 'screenshots');
const PORT = 18_080;
const URL = `http://127.0.0.1:${PORT}/`;
/** Number of requests before the first screenshot, so that the controller settles. */
const WARM_UP = 12;
/** Seed of the text that the screenshots show. */
const SEED = '863224800';
const DESKTOP = { width: 1120, height: 1000 };

const server = spawn(process.execPath, [join(import.meta.dirname, 'start.ts'), '--port', String(PORT)], {
  stdio: ['ignore', 'ignore', 'inherit'],
});
const browser = await launch();
try {
  await ready();
  for (let i = 0; i < WARM_UP; i++) await generate(i);
  await picture('race', { viewport: DESKTOP }, race);
  await picture('mid-stream', { viewport: DESKTOP }, midStream);
} finally {
  await browser.close();
  server.kill('SIGTERM');
}

async function ready(): Promise<void> {
  for (let i = 0; i < 1200; i++) {
    const response = await fetch(`${URL}readyz`).catch(() => undefined);
    if (response?.ok) return;
    await sleep(100);
  }
  throw new Error('the server was not ready within 120 s');
}

async function generate(seed: number): Promise<void> {
  const body = {
    model: 'default',
    prompt: '/** Options of a request. */\nexport interface RequestOptions {',
    max_tokens: 160,
    temperature: 0.7,
    top_k: 50,
    top_p: 0.9,
    seed,
  };
  const headers = { 'content-type': 'application/json' };
  await (await fetch(`${URL}v1/completions`, { method: 'POST', headers, body: JSON.stringify(body) })).text();
}

async function picture(
  name: string,
  options: BrowserContextOptions,
  use: (page: Page) => Promise<void>,
): Promise<void> {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  await page.goto(URL);
  await page.getByText('Serving').waitFor();
  await page.getByLabel('Seed').fill(SEED);
  await use(page);
  await page.screenshot({ path: join(OUT, `${name}.png`), fullPage: true });
  await context.close();
  console.log(`docs/screenshots/${name}.png`);
}

async function race(page: Page): Promise<void> {
  await page.getByRole('button', { name: 'Race with and without drafter' }).click();
  await page.getByRole('status').filter({ hasText: 'Identical' }).waitFor();
}

async function midStream(page: Page): Promise<void> {
  await page.getByRole('button', { name: 'Generate' }).click();
  await page.getByLabel('proposed, rejected').check();
  await page.locator('.text .token').nth(80).waitFor({ state: 'attached' });
}

import { createHash } from 'node:crypto';
import type { Browser, BrowserContextOptions, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ApiKeys } from '../gateway/src/access/api-keys.ts';
import { chromiumPath, launch } from './browser.ts';
import { onPage as onAnyPage } from './on-page.ts';
import { serveGateway } from './served.ts';

if (!chromiumPath)
  console.warn('skipping the tests of the traces page: no Chromium found, set PTP_CHROMIUM to its path');

const folder = new URL('../models/default', import.meta.url).pathname;

function complete(url: string, id: string, headers: Record<string, string> = {}) {
  return fetch(`${url}v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', 'x-request-id': id, ...headers },
    body: JSON.stringify({
      model: 'default',
      prompt: 'export interface ',
      max_tokens: 60,
      temperature: 0,
      ignore_eos: true,
    }),
  });
}

describe.skipIf(!chromiumPath)('the page of traces', () => {
  let server: Awaited<ReturnType<typeof serveGateway>>;
  let browser: Browser;
  beforeAll(async () => {
    server = await serveGateway(folder);
    browser = await launch();
    for (const id of [`first-one-${'x'.repeat(60)}`, 'second-one']) await (await complete(server.url, id)).text();
  }, 60_000);
  afterAll(async () => {
    await browser?.close();
    await server?.close();
  });

  const onPage = (
    use: (page: Page) => Promise<void>,
    options?: BrowserContextOptions,
    url = server.url,
    expected?: readonly RegExp[],
  ) => onAnyPage(browser, `${url}traces`, use, options, expected);

  const open = async (page: Page, name = 'second-one') => {
    await page.getByRole('button', { name }).click();
    await page.getByRole('heading', { name: `Request ${name}` }).waitFor();
  };
  const figure = (page: Page, name: string) =>
    page.locator('#step div', { has: page.locator(`dt:text-is("${name}")`) }).locator('dd');

  test('lists requests, newest first, and shows the times of a step', () =>
    onPage(async (page) => {
      await page.getByText('2 requests.').waitFor();
      expect(await page.locator('#requests tbody button').allTextContents()).toEqual([
        'second-one',
        expect.stringMatching(/^first-one/),
      ]);
      expect(await page.getByLabel('API key').isVisible()).toBe(false);
      await open(page);
      const steps = await page.locator('#view .bar-step').count();
      expect(steps).toBeGreaterThan(5);
      // There is one bar for each call and one for its run.
      expect(await page.locator('#view .bar-verify').count()).toBe(2 * steps);
      expect(await page.locator('#view .bar-draft.pale').count()).toBeGreaterThan(2);
      expect(await page.locator('#view .bar-open').count()).toBe(2);
      const first = await figure(page, 'step').textContent();
      await page.locator('#view .bar-step').nth(3).hover();
      expect(await figure(page, 'step').textContent()).toMatch(/^3 at /);
      expect(first).toMatch(/^0 at /);
      expect(await figure(page, 'verify, ms: queue + run').textContent()).toMatch(/^[\d.]+ \+ [\d.]+ of [\d.]+$/);
      expect(await figure(page, 'mode').textContent()).toBe('overlap: setting');
      await page.getByText('Table of all steps').click();
      expect(await page.locator('#steps tbody tr').count()).toBe(steps);
    }));

  test('draws bars whose lengths match the times', () =>
    onPage(async (page) => {
      await open(page);
      const id = new URL(page.url()).hash.slice(1);
      const trace = await (await fetch(`${server.url}traces/${id}.json`)).json();
      const boxes = await page
        .locator('#view .bar-step')
        .evaluateAll((bars) => bars.map((bar) => [Number(bar.getAttribute('x')), Number(bar.getAttribute('width'))]));
      const width = Number(await page.locator('#view svg').getAttribute('width'));
      trace.step_list.forEach((step: { start_us: number; step_us: number }, i: number) => {
        const [x = 0, w = 0] = boxes[i] ?? [];
        expect(x).toBeCloseTo((step.start_us / trace.duration_us) * width, 3);
        expect(w).toBeCloseTo((step.step_us / trace.duration_us) * width, 3);
      });
    }));

  test('selects steps and zooms with the keyboard', () =>
    onPage(async (page) => {
      await open(page);
      await page.locator('#view').focus();
      const width = async () => Number(await page.locator('#view svg').getAttribute('width'));
      const whole = await width();
      for (const key of ['ArrowRight', 'ArrowRight', '+', '+', '+', '+']) await page.keyboard.press(key);
      expect(await figure(page, 'step').textContent()).toMatch(/^2 at /);
      expect(await width()).toBeCloseTo(16 * whole, 0);
      await page.keyboard.press('End');
      expect(await page.locator('#view').evaluate((view) => view.scrollLeft)).toBeGreaterThan(whole);
      await page.keyboard.press('Home');
      expect(await figure(page, 'step').textContent()).toMatch(/^0 at /);
      await page.keyboard.press('0');
      expect(await width()).toBe(whole);
    }));

  test('downloads a Chrome trace', () =>
    onPage(async (page) => {
      await open(page);
      const [download] = await Promise.all([
        page.waitForEvent('download'),
        page.getByRole('link', { name: 'Chrome trace' }).click(),
      ]);
      expect(download.suggestedFilename()).toMatch(/^request-\d+\.perfetto\.json$/);
    }));

  test('fits a phone, and follows the dark mode of the system', () =>
    onPage(
      async (page) => {
        await page.getByText('2 requests.').waitFor();
        // Each figure of a request is in view, with its name.
        const cells = await page
          .locator('#requests tbody tr')
          .first()
          .locator('td')
          .evaluateAll((all) =>
            all.map((cell) => [
              cell.getBoundingClientRect().right <= innerWidth,
              getComputedStyle(cell, '::before').content,
            ]),
          );
        expect(cells).toHaveLength(8);
        expect(cells.every(([isVisible]) => isVisible)).toBe(true);
        expect(cells.at(-1)?.[1]).toBe('"Finish"');
        await open(page, 'first-one');
        await page.getByText('What the figures mean').click();
        await page.getByText('A draft has a branch for each likely outcome').waitFor();
        const [content, view] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
        expect(content).toBeLessThanOrEqual(view as number);
        const background = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
        expect(background).toBe('rgb(21, 23, 27)');
      },
      { viewport: { width: 360, height: 740 }, colorScheme: 'dark' },
    ));

  test('shows a field for the key if the server requires one', async () => {
    const sha256 = createHash('sha256').update('open sesame').digest('hex');
    const locked = await serveGateway(folder, { keys: new ApiKeys([{ name: 'me', sha256 }]) });
    try {
      const authorization = 'Bearer open sesame';
      await (await complete(locked.url, 'mine', { authorization })).text();
      for (const path of ['traces.json', 'traces/1.json', 'traces/1.perfetto.json'])
        expect((await fetch(locked.url + path)).status).toBe(401);
      await onPage(
        async (page) => {
          await page.getByLabel('API key').fill('open sesame');
          await page.getByRole('button', { name: 'Show' }).click();
          await open(page, 'mine');
          const [download] = await Promise.all([
            page.waitForEvent('download'),
            page.getByRole('link', { name: 'Chrome trace' }).click(),
          ]);
          expect(download.suggestedFilename()).toMatch(/perfetto\.json$/);
        },
        {},
        locked.url,
        [/status of 401/], // The browser logs this message.
      );
    } finally {
      await locked.close();
    }
  });
});

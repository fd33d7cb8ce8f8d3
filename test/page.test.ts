import type { Browser, BrowserContextOptions, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { chromiumPath, launch } from './browser.ts';
import { onPage as onAnyPage } from './on-page.ts';
import { serveGateway } from './served.ts';

if (!chromiumPath) console.warn('skipping the page tests: no Chromium found, set PTP_CHROMIUM to its path');

describe.skipIf(!chromiumPath)('the page', () => {
  let server: Awaited<ReturnType<typeof serveGateway>>;
  let browser: Browser;
  beforeAll(async () => {
    server = await serveGateway(new URL('../models/default', import.meta.url).pathname);
    browser = await launch();
  }, 60_000);
  afterAll(async () => {
    await browser?.close();
    await server?.close();
  });

  const onPage = (use: (page: Page) => Promise<void>, options?: BrowserContextOptions, expected?: readonly RegExp[]) =>
    onAnyPage(
      browser,
      server.url,
      async (page) => {
        await page.getByText(`Serving ${server.id}`).waitFor();
        await use(page);
      },
      options,
      expected,
    );

  const status = (page: Page) => page.getByRole('status');
  const finished = (page: Page, pattern: RegExp) =>
    status(page).filter({ hasText: pattern }).waitFor({ timeout: 20_000 });

  test('shows an answer with the source of each token and the times of its steps', () =>
    onPage(async (page) => {
      await page.getByLabel('Max tokens').fill('60');
      await page.getByRole('button', { name: 'Generate' }).click();
      await finished(page, /^\d+ tokens\.$/);
      const tokens = Number((await status(page).textContent())?.split(' ')[0]);
      const pane = page.locator('.pane');
      expect(await pane.count()).toBe(1);
      expect(await pane.locator('.text .token').count()).toBe(tokens);
      expect(await pane.locator('.text .drafter, .text .lookup').count()).toBeGreaterThan(0);
      expect(await pane.locator('.text .target').count()).toBeGreaterThan(0);
      expect(await pane.locator('[data-figure=tokens]').textContent()).toBe(String(tokens));
      expect(Number(await pane.locator('[data-figure=perStep]').textContent())).toBeGreaterThan(1);
      expect(await pane.locator('.lane-verify').count()).toBeGreaterThan(2);
      expect(await pane.locator('.lane-draft').count()).toBeGreaterThan(2);
    }));

  test('shows only tokens of the model without the drafter', () =>
    onPage(async (page) => {
      await page.getByLabel('Max tokens').fill('20');
      await page.getByLabel('Drafter').uncheck();
      await page.getByRole('button', { name: 'Generate' }).click();
      await finished(page, /tokens\.$/);
      expect(await page.locator('.text .drafter, .text .lookup').count()).toBe(0);
      expect(await page.locator('[data-figure=perStep]').textContent()).toBe('1.00');
      expect(await page.locator('.pane h2').textContent()).toBe('Without drafter');
    }));

  test('ends a race with the verdict that the texts are identical', () =>
    onPage(async (page) => {
      await page.getByLabel('Max tokens').fill('50');
      await page.getByRole('button', { name: 'Race with and without drafter' }).click();
      await finished(page, /^Identical: \d+ tokens\. [\d.]+ times as fast with the drafter\.$/);
      const text = async (n: number) =>
        (await page.locator('.pane').nth(n).locator('.text .prompt, .text .token').allTextContents()).join('');
      expect(await text(0)).toBe(await text(1));
      expect((await text(0)).length).toBeGreaterThan(60);
    }));

  test('draws one seed for both runs of a race', () =>
    onPage(async (page) => {
      await page.getByLabel('Max tokens').fill('30');
      await page.getByLabel('Temperature').fill('1.25');
      await page.getByLabel('Seed').fill('');
      await page.getByRole('button', { name: 'Race' }).click();
      await finished(page, /^Identical: \d+ tokens?\./);
      expect(await page.getByLabel('Seed').inputValue()).toMatch(/^\d+$/);
    }));

  test('shows no speed after a race of one token', () =>
    onPage(async (page) => {
      await page.getByLabel('Max tokens').fill('1');
      await page.getByRole('button', { name: 'Race' }).click();
      await finished(page, /^Identical: 1 token\.$/);
    }));

  test('accepts any temperature, and returns the focus to the pressed button', () =>
    onPage(async (page) => {
      await page.getByLabel('Temperature').fill('0.75');
      await page.getByLabel('Max tokens').fill('20');
      await page.getByRole('button', { name: 'Generate' }).focus();
      await page.keyboard.press('Enter');
      await finished(page, /^\d+ tokens?\.$/);
      await page.locator('button:focus', { hasText: 'Generate' }).waitFor();
    }));

  test("shows the server's error messages", () =>
    onPage(
      async (page) => {
        await page.getByLabel('Temperature').evaluate((element: HTMLInputElement) => {
          element.max = '9';
          element.value = '3';
        });
        await page.getByRole('button', { name: 'Generate' }).click();
        await finished(page, /`temperature` must be in \[0, 2\], got 3/);
        expect(await page.getByRole('button', { name: 'Generate' }).isEnabled()).toBe(true);
      },
      {},
      [/status of 400/], // The browser logs this message.
    ));

  test('can be stopped, and used with the keyboard alone', () =>
    onPage(async (page) => {
      // At temperature 0, the text does not end before the limit.
      await page.getByLabel('Temperature').fill('0');
      await page.getByLabel('Max tokens').fill('900');
      await page.getByLabel('Prompt').focus();
      await page.keyboard.press('Control+Enter');
      await page.locator('.text .token').first().waitFor({ state: 'attached' });
      await page.keyboard.press('Escape');
      await finished(page, /^Stopped\.$/);
      const order: string[] = [];
      await page.getByLabel('Prompt').focus();
      for (let i = 0; i < 18; i++) {
        await page.keyboard.press('Tab');
        order.push(await page.evaluate(() => document.activeElement?.id || document.activeElement?.textContent || ''));
      }
      for (const id of ['temperature', 'seed', 'stop_strings', 'drafting', 'Generate', 'race'])
        expect(order).toContain(id);
    }));

  test('fits a phone, and follows the dark mode of the system', () =>
    onPage(
      async (page) => {
        await page.locator('#settings summary').click();
        await page.getByLabel('Max tokens').fill('20');
        await page.getByRole('button', { name: 'Race' }).click();
        await finished(page, /^Identical/);
        const [content, view] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
        expect(content).toBeLessThanOrEqual(view as number);
        const background = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
        expect(background).toBe('rgb(21, 23, 27)');
      },
      { viewport: { width: 360, height: 740 }, colorScheme: 'dark' },
    ));

  test(
    'documents the API at /docs, and can send requests from there',
    () =>
      onPage(
        async (page) => {
          await page.getByRole('link', { name: 'API' }).click();
          const groups = page.locator('.opblock-tag');
          await groups.first().waitFor();
          expect(await groups.evaluateAll((all) => all.map((group) => group.getAttribute('data-tag')))).toEqual([
            'Generation',
            'Models and tokens',
            'Operation',
          ]);
          const completions = page.locator('.opblock', { hasText: 'Completes one or more prompts' });
          await completions.getByRole('button').first().click();
          await completions.getByRole('button', { name: 'Execute' }).click();
          await completions.locator('.live-responses-table .response-col_status', { hasText: '200' }).waitFor();
          const colour = () => page.locator('.info .title').evaluate((title) => getComputedStyle(title).color);
          const dark = await colour();
          await page.emulateMedia({ colorScheme: 'light' });
          await expect.poll(colour).not.toBe(dark);
          await page.getByRole('link', { name: 'Playground' }).click();
          await page.getByText(`Serving ${server.id}`).waitFor();
        },
        { colorScheme: 'dark' },
      ),
    60_000,
  ); // Swagger UI is large.
});

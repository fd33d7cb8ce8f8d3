import { createHash } from 'node:crypto';
import type { Browser, BrowserContextOptions, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { ApiKeys } from '../gateway/src/access/api-keys.ts';
import { startServer, type TestServer, tokenByToken } from '../gateway/test/testing/test-server.ts';
import { chromiumPath, launch } from './browser.ts';
import { onPage as onAnyPage } from './on-page.ts';

if (!chromiumPath) console.warn('skipping the tests of the page: no Chromium found, set PTP_CHROMIUM to its path');

interface PageOptions extends BrowserContextOptions {
  readonly url?: string;
  readonly expected?: readonly RegExp[];
}

const PHONE = { viewport: { width: 390, height: 700 } };

describe.skipIf(!chromiumPath)('the page', () => {
  let browser: Browser;
  let server: TestServer;
  const open: TestServer[] = [];
  beforeAll(async () => {
    browser = await launch();
    server = await startServer();
  });
  afterEach(async () => {
    server.generator.verifier = true;
    server.generator.script = () => ({ steps: tokenByToken('some text'), finish: 'stop' });
    for (const each of open.splice(0)) await each.close();
  });
  afterAll(async () => {
    await browser?.close();
    await server?.close();
  });

  const onPage = (
    use: (page: Page) => Promise<void>,
    { url = server.url, expected = [], ...options }: PageOptions = {},
  ) => onAnyPage(browser, `${url}/`, use, options, expected);
  const generate = (page: Page) => page.getByRole('button', { name: 'Generate' }).click();
  const says = (page: Page, pattern: RegExp) => page.getByRole('status').filter({ hasText: pattern }).waitFor();
  const figures = (page: Page) => page.locator('header .model').textContent();

  test('asks for the API key, and keeps it until the tab is closed', async () => {
    const sha256 = createHash('sha256').update('sesame').digest('hex');
    const locked = await startServer({}, new ApiKeys([{ name: 'me', sha256 }]));
    open.push(locked);
    locked.generator.script = () => ({ steps: tokenByToken('some text') });
    const expected = [/status of 401/, /status of 401/];
    await onPage(
      async (page) => {
        await page.getByText('This server requires an API key.').waitFor();
        await page.getByLabel('API key').fill('wrong');
        await page.keyboard.press('Enter');
        await page.getByText('the API key is unknown').waitFor();
        await page.getByLabel('API key').fill('sesame');
        await page.keyboard.press('Enter');
        await page.getByText('Serving test-model').waitFor();
        expect(await page.getByLabel('API key').isVisible()).toBe(false);
        await page.reload();
        await page.getByText('Serving test-model').waitFor();
        await generate(page);
        await says(page, /^\d+ tokens\.$/);
        await page.getByRole('button', { name: 'View code' }).click();
        await page.getByText('authorization: Bearer $PTP_API_KEY').waitFor();
      },
      { url: locked.url, expected },
    );
  });

  test('works in a browser that forbids storage', () =>
    onPage(async (page) => {
      server.generator.script = () => ({ steps: tokenByToken('some text'), finish: 'stop' });
      const forbid = 'Object.defineProperty(window, "sessionStorage", { get() { throw new DOMException("denied"); } })';
      await page.addInitScript(forbid);
      await page.reload();
      await page.getByText('Serving test-model').waitFor();
      await generate(page);
      await says(page, /^\d+ tokens\.$/);
    }));

  test('shows the context length, and what drafts', async () => {
    await onPage(async (page) => {
      await page.getByText('Serving test-model').waitFor();
      expect(await figures(page)).toContain('context of 512 tokens');
      await page.getByLabel('Drafter').waitFor();
      expect(await page.getByLabel('Max tokens').getAttribute('max')).toBe('511');
    });
    server.generator.target = { hasDrafter: false };
    await onPage(async (page) => {
      await page.getByRole('button', { name: 'Race with and without prompt lookup' }).waitFor();
      expect(await figures(page)).toContain('no drafter');
      expect(await page.getByLabel('Drafter').count()).toBe(0);
      expect(await page.getByLabel('Prompt lookup').isChecked()).toBe(true);
    });
    server.generator.target = {};
  });

  test('scrolls to the output on a phone', () =>
    onPage(async (page) => {
      server.generator.script = () => ({ steps: tokenByToken('some text '), endless: true, delayMillis: 50 });
      await page.getByText('Serving test-model').waitFor();
      await generate(page);
      await page.locator('.text .token').nth(20).waitFor({ state: 'attached' });
      const { y = 0 } = (await page.locator('.text').boundingBox()) ?? {};
      expect(y).toBeLessThan(400);
      const stop = page.getByRole('button', { name: 'Stop' });
      await page.evaluate(() => scrollTo(0, document.body.scrollHeight));
      expect(((await stop.boundingBox()) ?? { y: -1 }).y).toBeGreaterThanOrEqual(0);
      await stop.click();
    }, PHONE));

  test('follows the text, but not while the reader has scrolled up', () =>
    onPage(async (page) => {
      const steps = tokenByToken('export\n');
      server.generator.script = () => ({ steps, endless: true, delayMillis: 5 });
      await page.getByLabel('Max tokens').fill('500');
      await page.getByLabel('Prompt').fill('x');
      await generate(page);
      const text = page.locator('.text');
      const top = () => text.evaluate((pane) => pane.scrollTop);
      const left = () => text.evaluate((pane) => pane.scrollHeight - pane.clientHeight - pane.scrollTop);
      await expect.poll(top, { timeout: 10_000 }).toBeGreaterThan(200);
      await text.hover();
      await page.mouse.wheel(0, -150);
      const count = await text.locator('.token').count();
      await text
        .locator('.token')
        .nth(count + 60)
        .waitFor({ state: 'attached' });
      expect(await left()).toBeGreaterThan(150);
      await page.mouse.wheel(0, 20_000);
      await text
        .locator('.token')
        .nth(count + 120)
        .waitFor({ state: 'attached' });
      await expect.poll(left, { timeout: 5000 }).toBeLessThan(60);
      await page.keyboard.press('Escape');
    }));

  test('shows rejected tokens only if the reader wants them', () =>
    onPage(async (page) => {
      server.generator.script = () => ({ steps: tokenByToken('a b c d '), endless: true, delayMillis: 20 });
      await generate(page);
      await page.locator('.text .rejected').first().waitFor({ state: 'attached' });
      expect(await page.locator('.text .rejected:visible').count()).toBe(0);
      await page.getByLabel('proposed, rejected').check();
      await page.locator('.text .rejected').first().waitFor();
      await page.keyboard.press('Escape');
    }));

  test('says why a request has no answer, and shows no empty pane', async () => {
    const lost = await startServer();
    open.push(lost);
    lost.generator.script = () => ({ steps: tokenByToken('some text '), endless: true, delayMillis: 5 });
    const expected = [/status of 400/, /ERR_/, /ERR_CONNECTION_REFUSED/];
    await onPage(
      async (page) => {
        await page.getByLabel('Max tokens').fill('500');
        await page.getByLabel('Prompt').fill('x '.repeat(2000));
        await generate(page);
        await says(page, /tokens/);
        expect(await page.locator('.pane').count()).toBe(0);
        await page.getByLabel('Prompt').fill('x');
        await generate(page);
        await page.locator('.text .token').nth(5).waitFor({ state: 'attached' });
        await lost.close();
        await says(page, /^The connection to the server was lost before the answer was complete/);
        expect(await page.locator('.pane').count()).toBe(1);
        await generate(page);
        await says(page, /^The server does not respond/);
        expect(await page.locator('.pane').count()).toBe(0);
      },
      { url: lost.url, expected },
    );
  });

  test('keeps the pane of a run that replaces another', () =>
    onPage(async (page) => {
      server.generator.script = () => ({ steps: tokenByToken('some text '), endless: true, delayMillis: 300 });
      await page.getByLabel('Prompt').fill('x');
      await page.keyboard.press('Control+Enter');
      await page.keyboard.press('Control+Enter');
      await page.locator('.text .token').nth(1).waitFor({ state: 'attached' });
      expect(await page.locator('.pane').count()).toBe(1);
      expect(await page.locator('#status').textContent()).toBe('Generating …');
      await page.keyboard.press('Escape');
      await says(page, /^Stopped\.$/);
    }));

  test('says what it waits for if the verifier is lost', () =>
    onPage(
      async (page) => {
        server.generator.script = () => ({ steps: tokenByToken('a b c d e f'), delayMillis: 3500 });
        await page.getByText('Serving test-model').waitFor();
        server.generator.verifier = false;
        await generate(page);
        await says(page, /^Waiting: the verifier does not answer/);
        await says(page, /^Generating/);
        await page.keyboard.press('Escape');
      },
      { expected: [/status of 503/] },
    ));

  test('says so if the model ends the text at once', () =>
    onPage(async (page) => {
      server.generator.script = () => ({ steps: [[]] });
      await generate(page);
      await says(page, /^The model ended the text at once/);
    }));

  test('draws a seed for each run unless the reader keeps one, and remembers the settings', () =>
    onPage(async (page) => {
      const seed = page.getByLabel('Seed');
      const run = async () => {
        await generate(page);
        await says(page, /^\d+ tokens\.$/);
        return String(server.generator.requests.at(-1)?.seed);
      };
      const first = await run();
      expect(await seed.inputValue()).toBe(first);
      expect(await run()).not.toBe(first);
      await seed.fill('7');
      await page.getByLabel('Temperature').fill('0.3');
      await page.getByLabel('Stop strings').fill('}\\n\n;');
      await page.getByLabel('Prompt').fill('declare ');
      expect(await run()).toBe('7');
      await page.reload();
      expect(await seed.inputValue()).toBe('7');
      expect(await page.getByLabel('Temperature').inputValue()).toBe('0.3');
      expect(await page.getByLabel('Prompt').inputValue()).toBe('declare ');
      const [request] = await Promise.all([page.waitForRequest(/completions/), run()]);
      expect(request.postDataJSON()).toMatchObject({ stop: ['}\n', ';'], seed: 7, temperature: 0.3 });
    }));
});

import type { Browser, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { startServer, type TestServer, tokenByToken } from '../gateway/test/testing/test-server.ts';
import { chromiumPath, launch } from './browser.ts';
import { onPage as onAnyPage } from './on-page.ts';

if (!chromiumPath) console.warn('skipping the tests of the chat: no Chromium found, set PTP_CHROMIUM to its path');

const MARKDOWN = [
  '# Title\n\nSome **bold** text, <i>tags</i>, [a link](https://example.org) and [none](javascript:alert).\n\n',
  '```ts\nlet a = 1 < 2;\n```\n\n',
  '<img src=x onerror="document.title=1">\n\n![a picture](https://example.org/x.png)\n\n* one\n* two\n',
].join('');

describe.skipIf(!chromiumPath)('the chat', () => {
  let browser: Browser;
  let server: TestServer;
  beforeAll(async () => {
    browser = await launch();
    server = await startServer({ model: { hasChatTemplate: true, contextLength: 32_768 } });
  });
  afterEach(() => {
    server.generator.requests.length = 0;
  });
  afterAll(async () => {
    await browser?.close();
    await server?.close();
  });

  const onChat = (use: (page: Page) => Promise<void>, expected: readonly RegExp[] = []) =>
    onAnyPage(
      browser,
      `${server.url}/`,
      async (page) => {
        await page.getByLabel('Message').waitFor();
        await use(page);
      },
      { permissions: ['clipboard-read', 'clipboard-write'] },
      expected,
    );
  const script = (text: string) => {
    server.generator.script = () => ({ steps: tokenByToken(text), finish: 'stop' });
  };
  /** Sends a message, and waits for the end of the answer. Returns the request. */
  const send = async (page: Page, text: string) => {
    await page.getByLabel('Message').fill(text);
    const [request] = await Promise.all([page.waitForRequest(/chat\/completions/), page.keyboard.press('Enter')]);
    await page.getByRole('button', { name: 'Regenerate' }).waitFor();
    return request.postDataJSON();
  };
  const answers = (page: Page) => page.locator('.message.assistant .message-text').allTextContents();

  test('exists only for a model with a chat template', async () => {
    const plain = await startServer();
    try {
      await onAnyPage(browser, `${plain.url}/#chat`, async (page) => {
        await page.getByText('Serving test-model').waitFor();
        expect(await page.getByRole('link', { name: 'Chat' }).count()).toBe(0);
        expect(await page.getByLabel('Prompt').isVisible()).toBe(true);
      });
    } finally {
      await plain.close();
    }
    await onChat(async (page) => {
      expect(await page.getByLabel('Prompt').isVisible()).toBe(false);
      const current = page.locator('#tabs [aria-current=page]');
      expect(await current.allTextContents()).toEqual(['Chat']);
      await page.getByRole('link', { name: 'Complete' }).click();
      await page.getByLabel('Prompt').waitFor();
      expect(await current.allTextContents()).toEqual(['Complete']);
      expect(await page.getByLabel('Max tokens').inputValue()).toBe('160');
      await page.goBack();
      await page.getByLabel('Message').waitFor();
    });
  });

  test('shows Markdown, without images and without HTML of the model', () =>
    onChat(async (page) => {
      script(MARKDOWN);
      await send(page, 'Hello');
      const answer = page.locator('.message.assistant .message-text');
      expect(await answer.getByRole('heading').textContent()).toBe('Title');
      expect(await answer.locator('strong').textContent()).toBe('bold');
      expect(await answer.locator('li').allTextContents()).toEqual(['one', 'two']);
      expect(await answer.locator('img, i, script').count()).toBe(0);
      expect(await answer.textContent()).toContain('<i>tags</i>');
      const links = answer.locator('a');
      expect(await links.evaluateAll((all) => all.map((link) => link.getAttribute('href')))).toEqual([
        'https://example.org',
        null,
        'https://example.org/x.png',
      ]);
      expect(await links.first().getAttribute('rel')).toContain('noopener');
      const copied = () => page.evaluate(() => navigator.clipboard.readText());
      await answer.getByRole('button', { name: 'Copy' }).click();
      expect(await copied()).toBe('let a = 1 < 2;\n');
      await page.locator('.message.assistant .message-foot').getByRole('button', { name: 'Copy' }).click();
      await expect.poll(copied).toBe(MARKDOWN);
    }));

  test('resolves links whose definition follows', () =>
    onChat(async (page) => {
      const text = 'See [this page][1], please.\n\n[1]: https://example.org/page\n';
      server.generator.script = () => ({ steps: tokenByToken(text), finish: 'stop', delayMillis: 20 });
      await send(page, 'Where?');
      const link = page.locator('.message.assistant').getByRole('link', { name: 'this page' });
      expect(await link.getAttribute('href')).toBe('https://example.org/page');
    }));

  test('shows text that is nested too deeply for Markdown, and goes on', () =>
    onChat(async (page) => {
      const nested = '1. '.repeat(4000);
      server.generator.script = () => ({ steps: [tokenByToken(nested).flat()], finish: 'stop' });
      await send(page, 'Count');
      expect(await answers(page)).toEqual([nested]);
      await page.reload();
      await page.locator('.message.assistant .plain').waitFor();
      script('An **answer**.');
      await send(page, 'Again');
      expect(await page.locator('.message.assistant strong').textContent()).toBe('answer');
    }));

  test('shows a paragraph with too many emphasis marks as it is, and formats the others', () =>
    onChat(async (page) => {
      const marks = '*a_'.repeat(2000);
      server.generator.script = () => ({ steps: [tokenByToken(`${marks}\n\nAn **answer**.`).flat()], finish: 'stop' });
      await send(page, 'Emphasize');
      expect(await page.locator('.message.assistant p').allTextContents()).toEqual([marks, 'An answer.']);
      expect(await page.locator('.message.assistant strong').textContent()).toBe('answer');
    }));

  test('sends the system prompt and the conversation, and keeps them on a reload', () =>
    onChat(async (page) => {
      await page.getByText('System prompt').click();
      await page.getByLabel('Instructions for the model').fill('Be brief.');
      script('First.');
      await send(page, 'One');
      script('Second.');
      const messages = [
        { role: 'system', content: 'Be brief.' },
        { role: 'user', content: 'One' },
        { role: 'assistant', content: 'First.' },
        { role: 'user', content: 'Two' },
      ];
      expect(await send(page, 'Two')).toMatchObject({ messages, stream: true });
      await page.reload();
      await page.getByText('Second.').waitFor();
      expect(await page.getByLabel('Instructions for the model').inputValue()).toBe('Be brief.');
      script('Another.');
      const [request] = await Promise.all([
        page.waitForRequest(/chat\/completions/),
        page.getByRole('button', { name: 'Regenerate' }).click(),
      ]);
      expect(request.postDataJSON()).toMatchObject({ messages });
      await page.getByText('Another.').waitFor();
      expect((await answers(page)).map((text) => text.trim())).toEqual(['First.', 'Another.']);
      await page.getByRole('button', { name: 'View code' }).click();
      await page.getByText('/v1/chat/completions').waitFor();
      await page.getByRole('button', { name: 'Close' }).click();
      await page.getByRole('button', { name: 'New chat' }).click();
      expect(await page.locator('.message').count()).toBe(0);
    }));

  test('can be stopped, and keeps the part that it has', () =>
    onChat(async (page) => {
      server.generator.script = () => ({ steps: tokenByToken('word '), endless: true, delayMillis: 10 });
      await page.getByLabel('Message').fill('Go on');
      await page.getByRole('button', { name: 'Send' }).click();
      await page.getByText('word word word').waitFor();
      await page.getByRole('button', { name: 'Stop' }).click();
      await page.getByText('Stopped.').waitFor();
      expect((await answers(page))[0]).toContain('word word');
    }));

  test('goes on when Escape closes the code', () =>
    onChat(async (page) => {
      server.generator.script = () => ({ steps: tokenByToken('word '), endless: true, delayMillis: 10 });
      await page.getByLabel('Message').fill('Go on');
      await page.getByRole('button', { name: 'Send' }).click();
      await page.getByRole('button', { name: 'View code' }).click();
      await page.getByText('/v1/chat/completions').waitFor();
      await page.keyboard.press('Escape');
      await page.getByText('/v1/chat/completions').waitFor({ state: 'hidden' });
      expect(await page.locator('#chat-status').textContent()).toBe('Generating …');
      await page.keyboard.press('Escape');
      await page.getByText('Stopped.').waitFor();
    }));

  test('says why there is no answer, and can try again', () =>
    onChat(
      async (page) => {
        script('An answer.');
        await page.locator('#settings summary').click();
        await page.getByLabel('Stop strings').fill('x\n'.repeat(40));
        await send(page, 'Hello');
        await page.getByText('`stop`').waitFor();
        expect(await answers(page)).toEqual([]);
        await page.getByLabel('Stop strings').fill('');
        await page.getByRole('button', { name: 'Regenerate' }).click();
        await page.getByText('An answer.').waitFor();
      },
      [/status of 400/],
    ));

  test('replaces a message that has no answer by the next one', () =>
    onChat(
      async (page) => {
        script('An answer.');
        await page.locator('#settings summary').click();
        await page.getByLabel('Stop strings').fill('x\n'.repeat(40));
        await send(page, 'One');
        await page.getByLabel('Stop strings').fill('');
        expect(await send(page, 'Two')).toMatchObject({ messages: [{ role: 'user', content: 'Two' }] });
        expect(await page.locator('.message').count()).toBe(2);
      },
      [/status of 400/],
    ));
});

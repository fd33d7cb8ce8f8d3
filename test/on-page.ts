import type { Browser, BrowserContextOptions, Page } from 'playwright-core';
import { expect } from 'vitest';

/** Runs `use` on a page. Fails if the page sends requests to other servers, or logs unexpected errors. */
export async function onPage(
  browser: Browser,
  url: string,
  use: (page: Page) => Promise<void>,
  options: BrowserContextOptions = {},
  expected: readonly RegExp[] = [],
): Promise<void> {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  const complaints: string[] = [];
  page.on('console', (message) => message.type() === 'error' && complaints.push(message.text()));
  page.on('pageerror', (error) => complaints.push(error.message));
  page.on('request', (request) => {
    const { origin, protocol } = new URL(request.url());
    if (protocol !== 'data:' && origin !== new URL(url).origin) complaints.push(request.url());
  });
  try {
    await page.goto(url);
    await use(page);
    expect(complaints).toEqual(expected.map((pattern) => expect.stringMatching(pattern)));
  } finally {
    await context.close();
  }
}

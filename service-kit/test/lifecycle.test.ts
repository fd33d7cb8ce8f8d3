import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';

const lifecycle = JSON.stringify(new URL('../src/lifecycle.ts', import.meta.url).href);
const reload = JSON.stringify(new URL('../src/reload.ts', import.meta.url).href);
const errors = JSON.stringify(new URL('../../protocol/src/errors.ts', import.meta.url).href);

/** Runs a service in a process with an IPC channel; `start` is the body of its start function. */
function run(start: string, env: Record<string, string> = {}) {
  const script = `
    import { setTimeout as sleep } from 'node:timers/promises';
    import { runService } from ${lifecycle};
    import { onReload } from ${reload};
    import { PtpError } from ${errors};
    await runService('test', async (logger, onStop) => { ${start} });
    setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
  });
  const output = Promise.all([child.stdout, child.stderr].map((stream) => text(stream as NodeJS.ReadableStream)));
  const ended = once(child, 'exit').then(async ([code]) => ({ code, output: (await output).join('') }));
  return { child, ended };
}

const ready = (child: ChildProcess) => once(child, 'message');

const twoThings = `
  onStop(() => logger.info('first released'));
  onStop(async () => { await sleep(200); logger.info('second released'); });
  process.send('ready');`;

describe('runService', () => {
  test('releases resources once and in reverse order at SIGTERM, even if the signal is repeated', async () => {
    const { child, ended } = run(twoThings);
    await ready(child);
    child.kill('SIGTERM');
    await sleep(50);
    child.kill('SIGTERM');
    const { code, output } = await ended;
    expect(code).toBe(0);
    expect(output).toMatch(/SIGTERM[\s\S]*second released[\s\S]*first released[\s\S]*stopped/u);
    expect(output.match(/second released/g)).toHaveLength(1);
  });

  test('ends when the parent process has ended', async () => {
    const { child, ended } = run(twoThings);
    await ready(child);
    child.disconnect();
    expect(await ended).toMatchObject({ code: 0, output: expect.stringContaining('the parent process is gone') });
  });

  test('SIGHUP releases resources of a service without files to reload, and otherwise reloads them', async () => {
    const { child, ended } = run(twoThings);
    await ready(child);
    child.kill('SIGHUP');
    expect(await ended).toMatchObject({ code: 0, output: expect.stringMatching(/SIGHUP[\s\S]*first released/u) });

    const reloading = run(`onReload(() => process.send('reloaded')); ${twoThings}`);
    await ready(reloading.child);
    reloading.child.kill('SIGHUP');
    expect(await once(reloading.child, 'message')).toContain('reloaded');
    reloading.child.kill('SIGTERM');
    expect((await reloading.ended).output).not.toContain('SIGHUP');
  });

  test('ends at once at a second SIGINT', async () => {
    const { child, ended } = run(`onStop(() => sleep(60_000)); process.send('ready');`);
    await ready(child);
    child.kill('SIGINT');
    await sleep(50);
    child.kill('SIGINT');
    expect((await ended).code).toBe(130);
  });

  test('continues releasing when one release fails', async () => {
    const { child, ended } = run(`
      onStop(() => logger.info('first released'));
      onStop(() => { throw new Error('broken'); });
      process.send('ready');`);
    await ready(child);
    child.kill('SIGTERM');
    expect(await ended).toMatchObject({
      code: 0,
      output: expect.stringMatching(/could not stop cleanly[\s\S]*first released/u),
    });
  });

  test('logs in one line why it cannot start, releases its resources, and exits with 1', async () => {
    const { ended } = run(`
      onStop(() => logger.info('first released'));
      throw new PtpError('failed_precondition', '127.0.0.1:7101 is taken: set PTP_LISTEN to another address');`);
    const { code, output } = await ended;
    expect(code).toBe(1);
    expect(output.split('\n').filter((line) => line.includes('fatal'))).toEqual([
      expect.stringContaining('127.0.0.1:7101 is taken: set PTP_LISTEN to another address'),
    ]);
    expect(output).toContain('first released');
    expect(output).not.toContain('stack');
  });

  test('fails for a bad setting', async () => {
    const { ended } = run('', { PTP_LOG_LEVEL: 'loud' });
    expect(await ended).toMatchObject({ code: 1, output: expect.stringContaining('`PTP_LOG_LEVEL` must be one of') });
  });

  test('can be stopped while it starts', async () => {
    const { child, ended } = run(`onStop(() => logger.info('released')); process.send('ready'); await sleep(60_000);`);
    await ready(child);
    child.kill('SIGTERM');
    expect(await ended).toMatchObject({ code: 0, output: expect.stringContaining('released') });
  });
});

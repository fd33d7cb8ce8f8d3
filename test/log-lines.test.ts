import { expect, test, vi } from 'vitest';
import { printLine, readable } from '../scripts/log-lines.ts';

const line = (level: string, err?: object) =>
  JSON.stringify({ level, time: 1, service: 'x', msg: 'lost', peer: 'y', err });
const err = { message: '14 UNAVAILABLE: the connection was dropped', stack: 'PtpError: lost\n    at f (a.ts:1:2)' };

test('a log record becomes a readable line, with the stack of an unexpected error only', () => {
  expect(readable(line('info'))).toBe('lost peer=y');
  expect(readable(line('warn', err))).toContain(`: ${err.message}`);
  expect(readable(line('warn', err))).not.toContain('at f');
  expect(readable(line('error', err))).toContain('    at f (a.ts:1:2)');
  expect(readable('plain text')).toBe('plain text');
});

test.each([true, false])('lines have the time unless on a terminal (terminal: %s)', (isTerminal) => {
  const printed = vi.spyOn(console, 'log').mockImplementation(() => {});
  const before = process.stdout.isTTY;
  process.stdout.isTTY = isTerminal;
  try {
    printLine('gateway', 'green', 'ready');
    expect(/^\d{4}-\d\d-\d\dT[\d:.]+Z /.test(String(printed.mock.calls[0]?.[0]))).toBe(!isTerminal);
  } finally {
    process.stdout.isTTY = before;
    printed.mockRestore();
  }
});

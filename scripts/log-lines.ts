import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { styleText } from 'node:util';

/** A style of styleText in node:util. It has no effect if NO_COLOR is set or standard output is not a terminal. */
export type Style = Parameters<typeof styleText>[0];

/**
 * Prints a process's output. Each line is prefixed with the process's name, and JSON log records become readable text.
 */
export function printLines(name: string, style: Style, output: Readable): void {
  createInterface({ input: output }).on('line', (line) => printLine(name, style, readable(line)));
}

/** Prints a line with the name of its process. In a file or a journal, the time precedes it. */
export function printLine(name: string, style: Style, text: string): void {
  const time = process.stdout.isTTY ? '' : `${new Date().toISOString()} `;
  console.log(`${time}${styleText(style, name.padEnd(8))} | ${text}`);
}

const levelStyles: Record<string, Style> = { warn: 'yellow', error: 'red', fatal: 'red', debug: 'dim', trace: 'dim' };

/**
 * Formats `{"level":"warn","time":...,"service":...,"msg":"lost","peer":"x"}` as `warn lost peer=x`, and leaves other
 * lines unchanged.
 */
export function readable(line: string): string {
  const record = parse(line);
  if (!record) return line;
  const { level, time: _time, service: _service, msg, err, ...fields } = record;
  const words = Object.entries(fields).map(
    ([key, value]) => `${key}=${typeof value === 'string' ? value : JSON.stringify(value)}`,
  );
  const text = [level === 'info' ? undefined : level, msg, ...words].filter((part) => part !== undefined).join(' ');
  const style = levelStyles[String(level)];
  return (style ? styleText(style, text) : text) + (err === undefined ? '' : describe(err, level));
}

/** Returns the message of an expected failure, such as a lost service, and the stack of any other error. */
function describe(err: unknown, level: unknown): string {
  const { message, stack } = err as { message?: string; stack?: string };
  if (level === 'warn' && message !== undefined) return `: ${message}`;
  return `\n${stack ?? JSON.stringify(err)}`;
}

function parse(line: string): Record<string, unknown> | undefined {
  if (!line.startsWith('{"level":')) return undefined;
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}

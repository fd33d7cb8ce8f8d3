import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { styleText } from 'node:util';

/** A style of styleText in node:util. It has no effect if NO_COLOR is set or standard output is not a terminal. */
export type Style = Parameters<typeof styleText>[0];

/**
 * Prints a process's output. Each line is prefixed with the process's name, and JSON log records become readable text.
 */
export function printLines(name: string, style: Style, output: Readable): void {
  const prefix = styleText(style, name.padEnd(8));
  createInterface({ input: output }).on('line', (line) => console.log(`${prefix} | ${readable(line)}`));
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
  const details = err === undefined ? '' : `\n${(err as { stack?: string }).stack ?? JSON.stringify(err)}`;
  return (style ? styleText(style, text) : text) + details;
}

function parse(line: string): Record<string, unknown> | undefined {
  if (!line.startsWith('{"level":')) return undefined;
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}

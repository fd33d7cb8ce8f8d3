import { type DestinationStream, type Logger, pino } from 'pino';
import { sharedSettings } from './service-settings.ts';
import { settings } from './settings.ts';

export type { Logger } from 'pino';

/**
 * A logger that writes one JSON object a line, `{"level":"info","time":ms since 1970,"service":...,"msg":...}`.
 * Pass errors as `{ err }`: code, stack and cause are logged, which clients never see.
 *
 * @param service the process's name, for example `verifier`
 * @param destination standard output unless given
 * @throws PtpError `invalid_argument` if PTP_LOG_LEVEL is not a level
 */
export function createLogger(
  service: string,
  env: Readonly<Record<string, string | undefined>> = process.env,
  destination?: DestinationStream,
): Logger {
  const options = {
    level: settings({ level: sharedSettings.logLevel }, env).level,
    base: { service },
    formatters: { level: (label: string) => ({ level: label }) },
  };
  // Not pino's own destination: when the reader of a pipe is gone, that one retries for ever as the process exits.
  return pino(options, destination ?? process.stdout);
}

import { type DestinationStream, type Logger, pino } from 'pino';
import { sharedSettings } from './service-settings.ts';
import { settings } from './settings.ts';

export type { Logger } from 'pino';

/**
 * Creates a logger that writes one JSON object per line, `{"level":"info","time":ms since
 * 1970,"service":...,"msg":...}`. Pass errors as `{ err }`, which logs code, stack and cause. Clients never see these.
 *
 * @param service name of the process, for example `verifier`
 * @param destination stream for the log. Default: standard output
 * @throws PtpError `invalid_argument` if PTP_LOG_LEVEL is invalid
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
  // pino's default destination retries forever at exit if the reader of the pipe is gone
  return pino(options, destination ?? process.stdout);
}

import { setTimeout as sleep } from 'node:timers/promises';
import { PtpError, toPtpError } from '@ptp/protocol/errors';
import { createLogger, type Logger } from './log.ts';
import { reload } from './reload.ts';
import { sharedSettings } from './service-settings.ts';
import { checkSettingNames } from './setting-names.ts';
import { settings } from './settings.ts';

/** Releases a resource before the process ends. The process ends even if this function throws. */
export type StopAction = () => unknown;

/**
 * Calls `drain` once: on SIGTERM, on SIGINT, on SIGHUP if the process has no files to reload, or when the IPC channel
 * closes because the parent process is gone. The process then exits, with status 0 unless `drain` failed. Further
 * signals are ignored, except that a second SIGINT (Ctrl-C) exits at once.
 *
 * @param limitMs time after which the process exits with status 1 even if `drain` has not finished
 */
function onShutdown(drain: (reason: string) => unknown, limitMs: number): void {
  let begun = false;
  const begin = (reason: string) => {
    if (begun) {
      if (reason === 'SIGINT') process.exit(130);
      return;
    }
    begun = true;
    setTimeout(() => process.exit(1), limitMs).unref();
    (async () => drain(reason))().then(
      () => process.exit(0),
      () => process.exit(1),
    );
  };
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, begin);
  process.on('SIGHUP', (signal) => reload() || begin(signal));
  if (process.connected) process.on('disconnect', () => begin('the parent process is gone'));
}

/** Maximum time in milliseconds for the steps after draining, such as freeing models and sending spans. */
const afterDrainMs = 10_000;
/** Maximum time in milliseconds that shutdown waits for a start that is still in progress. */
const startGraceMs = 5_000;

/**
 * Runs a service process from start to end. `start` acquires resources and registers an action with `onStop` to release
 * each of them. The actions run in reverse order, on a signal ({@link onShutdown}) or if `start` fails. If it fails,
 * the error is logged in one line and the process exits with status 1.
 */
export async function runService(
  name: string,
  start: (logger: Logger, onStop: (action: StopAction) => void) => Promise<void>,
): Promise<void> {
  process.stdout.on('error', () => {}); // This happens if the reader of the log is gone. A signal or 'disconnect' follows.
  const actions: StopAction[] = [];
  let logger: Logger | undefined;
  const release = async () => {
    for (let action = actions.pop(); action; action = actions.pop()) {
      try {
        await action();
      } catch (err) {
        logger?.error({ err }, 'could not stop cleanly');
      }
    }
  };
  try {
    logger = createLogger(name);
    checkSettingNames(process.env);
    const { drainSeconds } = settings({ drainSeconds: sharedSettings.drainSeconds }, process.env);
    const { promise: ended, resolve: end } = Promise.withResolvers<void>();
    const { promise: started, resolve: settled } = Promise.withResolvers<void>();
    onShutdown(
      async (reason) => {
        logger?.info({ reason }, 'stopping');
        end();
        await release();
        // A process that exits while a native library is loading may crash.
        await Promise.race([started, sleep(startGraceMs)]);
        await release();
        logger?.info('stopped');
      },
      drainSeconds * 1000 + afterDrainMs,
    );
    const starting = start(logger, (action) => actions.push(action)).finally(settled);
    await Promise.race([starting, ended]);
  } catch (error) {
    reportFailure(name, error, logger);
    await Promise.race([release(), sleep(afterDrainMs)]);
    process.exit(1);
  }
}

/**
 * Ends the process when its engine dies, so that the supervisor restarts the process and health checks fail until then.
 */
export function endWhen(lost: Promise<Error>, logger: Logger): void {
  void lost.then((err) => {
    logger.fatal({ err }, err.message);
    process.exit(1);
  });
}

/**
 * Logs a failure. Logs only the message of a PtpError, because it is written for users, and the stack of any other
 * error.
 */
function reportFailure(name: string, error: unknown, logger: Logger | undefined): void {
  if (!logger) console.error(`${name}: ${toPtpError(error).message}`);
  else if (error instanceof PtpError) logger.fatal({ code: error.code }, error.message);
  else logger.fatal({ err: error }, `cannot start: ${error instanceof Error ? error.message : String(error)}`);
}

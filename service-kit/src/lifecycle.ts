import { setTimeout as sleep } from 'node:timers/promises';
import { PtpError, toPtpError } from '@ptp/protocol/errors';
import { createLogger, type Logger } from './log.ts';
import { sharedSettings } from './service-settings.ts';
import { checkSettingNames } from './setting-names.ts';
import { settings } from './settings.ts';

/** What is to be done before the process ends. It may throw; the process ends all the same. */
export type StopAction = () => unknown;

/**
 * Calls back once when the process is to end: at SIGTERM, at SIGINT, or when the process that started it is gone (their IPC
 * channel closes). The callback drains; then the process exits, with 0 if all went well. Further signals change nothing,
 * but a second SIGINT, somebody's impatient Ctrl-C, exits at once.
 *
 * @param limitMs after which the process exits with 1, whatever the callback is still waiting for
 * @returns what starts the same by hand
 */
export function onShutdown(drain: (reason: string) => unknown, limitMs: number): (reason: string) => void {
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
  if (process.connected) process.on('disconnect', () => begin('the parent process is gone'));
  return begin;
}

/** How long what comes after the drain may take: freeing models, sending spans. */
const afterDrainMs = 10_000;
/** How long a stop waits for a start that is under way. */
const startGraceMs = 5_000;

/**
 * Runs a process of ours from start to end. `start` acquires things one after another and registers with `onStop` how each
 * is released; they are released in reverse order when the process is to end (see {@link onShutdown}), and also when `start`
 * fails: then the reason is logged in one line and the process exits with 1.
 */
export async function runService(
  name: string,
  start: (logger: Logger, onStop: (action: StopAction) => void) => Promise<void>,
): Promise<void> {
  // From 1.30 on, onnxruntime's native library reports usage to its maker unless told not to. It reads this when it is loaded.
  process.env.ORT_DISABLE_TELEMETRY ??= '1';
  process.stdout.on('error', () => {}); // whoever read our log is gone; 'disconnect' or a signal will follow
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
        // a native library that is still loading would not survive the process's end in silence
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

/** Ends the process when what it lives for is lost; whoever runs it starts it again, and health says the truth meanwhile. */
export function endWhen(lost: Promise<Error>, logger: Logger): void {
  void lost.then((err) => {
    logger.fatal({ err }, err.message);
    process.exit(1);
  });
}

/** A PtpError's message is made to be read; of anything else the stack is needed. */
function reportFailure(name: string, error: unknown, logger: Logger | undefined): void {
  if (!logger) console.error(`${name}: ${toPtpError(error).message}`);
  else if (error instanceof PtpError) logger.fatal({ code: error.code }, error.message);
  else logger.fatal({ err: error }, `cannot start: ${error instanceof Error ? error.message : String(error)}`);
}

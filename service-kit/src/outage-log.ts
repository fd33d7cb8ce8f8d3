import type { Logger } from './log.ts';

/** Logs the reason of an outage once per outage, and each time the reason changes. */
export class OutageLog {
  readonly #logger: Pick<Logger, 'warn'>;
  readonly #message: string;
  #reported = '';

  constructor(logger: Pick<Logger, 'warn'>, message: string) {
    this.#logger = logger;
    this.#message = message;
  }

  /** @param record reason and other fields of the log record */
  report(record: { readonly reason: string } & Readonly<Record<string, string>>): void {
    if (record.reason !== this.#reported) this.#logger.warn(record, this.#message);
    this.#reported = record.reason;
  }

  /** Must be called when the outage has ended. */
  end(): void {
    this.#reported = '';
  }
}

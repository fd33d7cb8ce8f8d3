import type { Logger } from '@ptp/service-kit/log';

/** Reasons why a service cannot be reached, by the text of Node's and OpenSSL's errors. */
const CAUSES: readonly (readonly [RegExp, string])[] = [
  [/ENOTFOUND|EAI_AGAIN|Name resolution failed/, 'its name cannot be resolved'],
  [/ECONNREFUSED|ENOENT/, 'nothing listens at its address'],
  [/expired|not yet valid/, "its certificate is not valid at this machine's time: compare the clocks and the dates"],
  [/self-signed|unable to (get|verify)/i, 'no authority in PTP_TLS_CA_FILE has signed its certificate'],
  [/altnames|does not match/, 'its certificate is for another name'],
  [/wrong version number|EPROTO/, 'only one side uses TLS: set PTP_TLS_* at both'],
  [/ETIMEDOUT|EHOSTUNREACH|ENETUNREACH/, 'there is no route to its address, or a firewall drops the connection'],
  [
    /ECONNRESET|EPIPE|Failed to connect|dropped|disconnected|closed/i,
    'it closes the connection: it uses TLS, or rejects our certificate',
  ],
];

/** Logs why a service cannot be reached, once per outage or each time the reason changes. */
export class OutageLog {
  readonly #log: (record: { reason: string; details: string }) => void;
  #reported = '';

  /** @param service name of the service and its address, which each log line has */
  constructor(logger: Logger, service: { readonly peer: string; readonly address: string }, message: string) {
    this.#log = (record) => logger.warn({ ...service, ...record }, message);
  }

  report(error: unknown): void {
    const details = detailsOf(error);
    const reason = reasonOf(details);
    if (reason !== this.#reported) this.#log({ reason, details });
    this.#reported = reason;
  }

  /** Must be called when the outage has ended. */
  end(): void {
    this.#reported = '';
  }
}

function reasonOf(details: string): string {
  const [, cause = 'it does not answer'] = CAUSES.find(([pattern]) => pattern.test(details)) ?? [];
  return cause;
}

/** Returns the messages of an error and all of its causes. */
function detailsOf(error: unknown): string {
  if (!(error instanceof Error)) return error === undefined ? '' : String(error);
  const { details } = error as { readonly details?: string };
  const own = details ?? error.message;
  const cause = detailsOf(error.cause);
  return cause === '' || own.includes(cause) ? own : `${own}: ${cause}`;
}

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

/** Returns the fields of a log record that say why a service cannot be reached. */
export function outageCause(error: unknown): { readonly reason: string; readonly details: string } {
  const details = detailsOf(error);
  const [, reason = 'it does not answer'] = CAUSES.find(([pattern]) => pattern.test(details)) ?? [];
  return { reason, details };
}

/** Returns the messages of an error and all of its causes. */
function detailsOf(error: unknown): string {
  if (!(error instanceof Error)) return error === undefined ? '' : String(error);
  const { details } = error as { readonly details?: string };
  const own = details ?? error.message;
  const cause = detailsOf(error.cause);
  return cause === '' || own.includes(cause) ? own : `${own}: ${cause}`;
}

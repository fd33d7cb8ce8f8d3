import type { IncomingHttpHeaders } from 'node:http';
import { PtpError } from '@ptp/protocol/errors';
import { invalidField } from '@ptp/protocol/validation';

/**
 * Checks that a proxy in front of this server cannot have understood the length of the body differently. Node accepts
 * `identity, chunked`, which RFC 9112 no longer defines.
 *
 * @throws PtpError `invalid_argument` for any transfer encoding but `chunked`
 */
export function checkTransferEncoding({ 'transfer-encoding': encoding }: IncomingHttpHeaders): void {
  if (encoding === undefined || encoding.trim().toLowerCase() === 'chunked') return;
  throw new PtpError('invalid_argument', '`transfer-encoding` must be chunked', { field: 'transfer-encoding' });
}

const LOOPBACK = /^(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?$/i;

/**
 * Checks the Host header on a server that only this machine can reach. Without the check, a web page could let its own
 * domain name point to 127.0.0.1 and read the answers (DNS rebinding).
 *
 * @param origins origins whose pages may call the API
 * @throws PtpError `invalid_argument` for a name that does not mean this machine
 */
export function checkLocalHost({ host }: IncomingHttpHeaders, origins: readonly string[]): void {
  if (host === undefined || LOOPBACK.test(host) || origins.includes('*')) return;
  if (origins.some((origin) => URL.canParse(origin) && new URL(origin).host === host)) return;
  const remedy = 'set PTP_API_KEYS_FILE, or list the origin in PTP_CORS_ORIGINS';
  throw invalidField('host', `localhost or 127.0.0.1 on a server without API keys (${remedy})`, host);
}

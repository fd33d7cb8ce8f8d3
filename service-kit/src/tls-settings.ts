import { access, constants } from 'node:fs/promises';
import { Tls } from '@ptp/protocol/credentials';
import { PtpError } from '@ptp/protocol/errors';
import type { SettingsOf, SettingsTable } from './settings.ts';

/** TLS between the services; the same names at each of them. */
export const tlsSettings = {
  tlsCert: {
    name: 'PTP_TLS_CERT_FILE',
    type: 'string',
    default: '',
    doc: 'Certificate chain (PEM) with which this service shows who it is to the others; empty for no TLS between them. Read again when it changes.',
  },
  tlsKey: { name: 'PTP_TLS_KEY_FILE', type: 'string', default: '', doc: "The certificate's private key (PEM)." },
  tlsCa: {
    name: 'PTP_TLS_CA_FILE',
    type: 'string',
    default: '',
    doc: 'Certificates (PEM) of who may vouch for the others. Services then want one of each other (mutual TLS).',
  },
} as const satisfies SettingsTable;

/**
 * TLS as the settings have it; undefined for none.
 *
 * @throws PtpError `failed_precondition` naming the setting whose file is missing
 */
export async function loadTls(config: SettingsOf<typeof tlsSettings>): Promise<Tls | undefined> {
  const { tlsCert: cert, tlsKey: key, tlsCa: ca } = config;
  if (cert === '' && key === '' && ca === '') return undefined;
  await checkFile(cert, tlsSettings.tlsCert.name);
  await checkFile(key, tlsSettings.tlsKey.name);
  if (ca !== '') await checkFile(ca, tlsSettings.tlsCa.name);
  return new Tls({ cert, key, ca: ca === '' ? undefined : ca });
}

/** @throws PtpError `failed_precondition` unless the file of a setting can be read */
export async function checkFile(path: string, setting: string): Promise<void> {
  const readable = await access(path, constants.R_OK).then(
    () => true,
    () => false,
  );
  if (path === '' || !readable) {
    const message = `${setting} must be a file that can be read, got ${JSON.stringify(path)}`;
    throw new PtpError('failed_precondition', message, { field: setting });
  }
}

import { access, constants } from 'node:fs/promises';
import { Tls } from '@ptp/protocol/credentials';
import { requireField } from '@ptp/protocol/validation';
import { path, type SettingsOf, setting } from './settings.ts';

/** Settings of TLS between the services. */
export const tlsSettings = {
  tlsCert: setting('PTP_TLS_CERT_FILE', path, '').doc(
    'Certificate chain (PEM) of this service for TLS between services. Without this setting, services do not use TLS. The file is reloaded when it changes.',
  ),
  tlsKey: setting('PTP_TLS_KEY_FILE', path, '').doc('Private key (PEM) for PTP_TLS_CERT_FILE.'),
  tlsCa: setting('PTP_TLS_CA_FILE', path, '').doc(
    'Certificates (PEM) of the authorities that are trusted to sign the certificates of other services. If set, services require certificates from each other (mutual TLS).',
  ),
};

/**
 * Loads the TLS credentials that the settings name. Returns undefined if none are set.
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

/** Checks that the file of a setting can be read. @throws PtpError `failed_precondition` if it cannot */
export async function checkFile(file: string, setting: string): Promise<void> {
  const readable = await access(file, constants.R_OK).then(
    () => true,
    () => false,
  );
  requireField(file !== '' && readable, setting, 'a readable file', file, 'failed_precondition');
}

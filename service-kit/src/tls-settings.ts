import { access, constants } from 'node:fs/promises';
import { Tls, type TlsFiles, type TlsOptions } from '@ptp/protocol/credentials';
import { requireField } from '@ptp/protocol/validation';
import type { Logger } from './log.ts';
import { onReload } from './reload.ts';
import { path, type SettingsOf, setting } from './settings.ts';

/** Settings of TLS between the services. */
export const tlsSettings = {
  tlsCert: setting('PTP_TLS_CERT_FILE', path, '').doc(
    'Certificate chain (PEM) of this service for TLS between services. Without this setting, services do not use TLS. The file is reloaded when it changes.',
  ),
  tlsKey: setting('PTP_TLS_KEY_FILE', path, '').doc('Private key (PEM) for PTP_TLS_CERT_FILE.'),
  tlsCa: setting('PTP_TLS_CA_FILE', path, '').doc(
    'Certificates (PEM) of the authorities that are trusted to sign the certificates of other services. If set, services require certificates from each other (mutual TLS), and drafter and verifier accept only those of a gateway: with the DNS name (SAN) or the organizational unit (OU) `gateway`, or the certificate of the service, for health checks.',
  ),
};

/**
 * Loads the TLS credentials that the settings name. Returns undefined if none are set.
 *
 * @throws PtpError `failed_precondition` naming the setting whose file is missing
 */
export async function loadTls(config: SettingsOf<typeof tlsSettings>, options?: TlsOptions): Promise<Tls | undefined> {
  const { tlsCert, tlsKey, tlsCa } = tlsSettings;
  const names = { cert: tlsCert.name, key: tlsKey.name, ca: tlsCa.name };
  return loadIdentity({ cert: config.tlsCert, key: config.tlsKey, ca: config.tlsCa }, names, options);
}

/**
 * Loads a certificate and its private key. Returns undefined if all paths are empty. SIGHUP reloads the files.
 *
 * @param files paths; an empty `ca` turns mutual TLS off
 * @param names names of the settings that hold the paths
 * @throws PtpError `failed_precondition` naming the setting whose file is missing or damaged
 */
export async function loadIdentity(
  { cert, key, ca = '' }: TlsFiles,
  names: TlsFiles,
  options?: TlsOptions,
): Promise<Tls | undefined> {
  if (cert === '' && key === '' && ca === '') return undefined;
  await checkFile(cert, names.cert);
  await checkFile(key, names.key);
  if (ca !== '') await checkFile(ca, names.ca ?? '');
  const tls = new Tls({ cert, key, ca: ca === '' ? undefined : ca }, { ...options, names });
  onReload(() => tls.reload());
  return tls;
}

/** Checks that the file of a setting can be read. @throws PtpError `failed_precondition` if it cannot */
export async function checkFile(file: string, setting: string): Promise<void> {
  const readable = await access(file, constants.R_OK).then(
    () => true,
    () => false,
  );
  requireField(file !== '' && readable, setting, 'a readable file', file, 'failed_precondition');
}

/** Returns options that log failed renewals of certificates, and rejected clients. */
export function logTls(logger: Logger): TlsOptions {
  return {
    onError: (err) => logger.error({ err }, 'cannot renew the certificate: the last good one stays in use'),
    onRefusal: (subject) =>
      logger.warn(
        { subject },
        'refused a client: its certificate must have the DNS name (SAN) or the organizational unit (OU) `gateway`',
      ),
  };
}

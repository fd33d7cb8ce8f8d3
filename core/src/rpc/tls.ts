import { access, constants } from 'node:fs/promises';
import { type ChannelCredentials, credentials, experimental, ServerCredentials } from '@grpc/grpc-js';
import type { SettingsOf, SettingsTable } from '../env.ts';
import { PtpError } from '../errors.ts';

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

/** Files in PEM form; `ca` for mutual TLS. */
export interface TlsFiles {
  readonly cert: string;
  readonly key: string;
  readonly ca?: string | undefined;
}

/** How often files are looked at again, milliseconds. */
export const REFRESH_MS = 10_000;

/** A process's side of TLS. Its files are read again while it runs, so that certificates can be renewed. */
export class Tls {
  readonly #files: experimental.FileWatcherCertificateProvider;
  readonly #mutual: boolean;

  /** Use `loadTls`, which checks the files. */
  constructor({ cert, key, ca }: TlsFiles, refreshIntervalMs = REFRESH_MS) {
    this.#mutual = ca !== undefined;
    this.#files = new experimental.FileWatcherCertificateProvider({
      certificateFile: cert,
      privateKeyFile: key,
      ...(ca !== undefined && { caCertificateFile: ca }),
      refreshIntervalMs,
    });
  }

  server(): ServerCredentials {
    // of the two providers the first tells who we are, whatever the declaration calls it
    return experimental.createCertificateProviderServerCredentials(
      this.#files,
      this.#mutual ? this.#files : null,
      this.#mutual,
    );
  }

  client(): ChannelCredentials {
    return this.#mutual
      ? experimental.createCertificateProviderChannelCredentials(this.#files, this.#files)
      : credentials.createSsl();
  }
}

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

/** Sockets in the file system have its permissions instead. */
const isLocal = (address: string): boolean => address.startsWith('unix:');

export function serverCredentials(address: string, tls: Tls | undefined): ServerCredentials {
  return tls && !isLocal(address) ? tls.server() : ServerCredentials.createInsecure();
}

export function clientCredentials(address: string, tls: Tls | undefined): ChannelCredentials {
  return tls && !isLocal(address) ? tls.client() : credentials.createInsecure();
}

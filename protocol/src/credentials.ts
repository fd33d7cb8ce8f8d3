import { type ChannelCredentials, credentials, experimental, ServerCredentials } from '@grpc/grpc-js';

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

/** Sockets in the file system have its permissions instead. */
const isLocal = (address: string): boolean => address.startsWith('unix:');

export function serverCredentials(address: string, tls: Tls | undefined): ServerCredentials {
  return tls && !isLocal(address) ? tls.server() : ServerCredentials.createInsecure();
}

export function clientCredentials(address: string, tls: Tls | undefined): ChannelCredentials {
  return tls && !isLocal(address) ? tls.client() : credentials.createInsecure();
}

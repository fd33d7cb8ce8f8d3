import { type ChannelCredentials, credentials, experimental, ServerCredentials } from '@grpc/grpc-js';

/** Paths of PEM files. `ca` enables mutual TLS. */
export interface TlsFiles {
  readonly cert: string;
  readonly key: string;
  readonly ca?: string | undefined;
}

/** Interval in milliseconds at which the files are reloaded. */
export const REFRESH_MS = 10_000;

/** A process's TLS identity. Its files are reloaded while the process runs, so certificates can be renewed. */
export class Tls {
  readonly #files: experimental.FileWatcherCertificateProvider;
  readonly #mutual: boolean;

  /** Does not check the files; use service-kit's `loadTls` for that. */
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
    // The first provider supplies the server's own certificate: grpc-js's type declaration swaps the two names.
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

/** Unix sockets are protected by file permissions instead of TLS. */
const isLocal = (address: string): boolean => address.startsWith('unix:');

export function serverCredentials(address: string, tls: Tls | undefined): ServerCredentials {
  return tls && !isLocal(address) ? tls.server() : ServerCredentials.createInsecure();
}

export function clientCredentials(address: string, tls: Tls | undefined): ChannelCredentials {
  return tls && !isLocal(address) ? tls.client() : credentials.createInsecure();
}

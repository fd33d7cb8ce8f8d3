import { readFileSync, watchFile } from 'node:fs';
import { createSecureContext, type SecureContextOptions } from 'node:tls';
import { type ChannelCredentials, credentials, experimental } from '@grpc/grpc-js';
import { PtpError } from './errors.ts';

/** Paths of PEM files. `ca` enables mutual TLS. */
export interface TlsFiles {
  readonly cert: string;
  readonly key: string;
  readonly ca?: string | undefined;
}

export interface TlsOptions {
  /** Interval in milliseconds at which the files are checked for changes. */
  readonly refreshMs?: number;
  /** Receives the error each time changed files cannot be used, for example a certificate without its new key. */
  readonly onError?: (error: PtpError) => void;
}

/** Contents of the files. */
interface Identity {
  readonly cert: Buffer;
  readonly key: Buffer;
  readonly ca?: Buffer;
}

/** Interval in milliseconds at which files are checked for changes. */
export const REFRESH_MS = 10_000;

/**
 * A process's TLS identity. Its files are reloaded while the process runs, so certificates can be renewed. If the new
 * files do not fit together, as in the middle of a renewal, the last good ones stay in use.
 */
export class Tls {
  readonly #files: TlsFiles;
  readonly #onError: (error: PtpError) => void;
  readonly #listeners = new Set<() => void>();
  readonly #provider = new IdentityProvider(this);
  #current: Identity;
  #rejected = '';

  /** @throws PtpError `failed_precondition` if the files cannot be used */
  constructor(files: TlsFiles, { refreshMs = REFRESH_MS, onError = () => {} }: TlsOptions = {}) {
    this.#files = files;
    this.#onError = onError;
    this.#current = readIdentity(files);
    const reload = () => this.reload();
    for (const file of Object.values(files)) {
      if (file !== undefined) watchFile(file, { interval: refreshMs, persistent: false }, reload);
    }
  }

  /** Current contents of the files. */
  get identity(): Identity {
    return this.#current;
  }

  /** True if both sides must present certificates. */
  get mutual(): boolean {
    return this.#files.ca !== undefined;
  }

  /** Reads the files again. */
  reload(): void {
    try {
      const next = readIdentity(this.#files);
      this.#rejected = '';
      if (isSame(next, this.#current)) return;
      this.#current = next;
    } catch (error) {
      const failure = error as PtpError;
      if (failure.message !== this.#rejected) this.#onError(failure);
      this.#rejected = failure.message;
      return;
    }
    for (const listener of this.#listeners) listener();
  }

  /** Calls `listener` after each renewal. */
  onRenewal(listener: () => void): void {
    this.#listeners.add(listener);
  }

  removeListener(listener: () => void): void {
    this.#listeners.delete(listener);
  }

  /** Options of a TLS server. */
  serverOptions(): SecureContextOptions & { readonly requestCert: boolean; readonly rejectUnauthorized: boolean } {
    return { ...this.#current, minVersion: 'TLSv1.2', requestCert: this.mutual, rejectUnauthorized: this.mutual };
  }

  client(): ChannelCredentials {
    return this.mutual
      ? experimental.createCertificateProviderChannelCredentials(this.#provider, this.#provider)
      : credentials.createSsl();
  }
}

type CaListener = Parameters<experimental.CertificateProvider['addCaCertificateListener']>[0];
type IdentityListener = Parameters<experimental.CertificateProvider['addIdentityCertificateListener']>[0];

/** Supplies grpc-js's clients with the current certificates. */
class IdentityProvider implements experimental.CertificateProvider {
  readonly #tls: Tls;
  readonly #renewals = new Map<CaListener | IdentityListener, () => void>();

  constructor(tls: Tls) {
    this.#tls = tls;
  }

  addCaCertificateListener(listener: CaListener): void {
    this.#add(listener, () => listener({ caCertificate: this.#tls.identity.ca as Buffer }));
  }

  addIdentityCertificateListener(listener: IdentityListener): void {
    this.#add(listener, () => {
      const { cert: certificate, key: privateKey } = this.#tls.identity;
      listener({ certificate, privateKey });
    });
  }

  removeCaCertificateListener(listener: CaListener): void {
    this.#remove(listener);
  }

  removeIdentityCertificateListener(listener: IdentityListener): void {
    this.#remove(listener);
  }

  #add(listener: CaListener | IdentityListener, renew: () => void): void {
    this.#renewals.set(listener, renew);
    this.#tls.onRenewal(renew);
    // grpc-js expects the first call after this method has returned.
    setImmediate(() => this.#renewals.has(listener) && renew());
  }

  #remove(listener: CaListener | IdentityListener): void {
    const renew = this.#renewals.get(listener);
    if (renew) this.#tls.removeListener(renew);
    this.#renewals.delete(listener);
  }
}

/** Reads the files. @throws PtpError `failed_precondition` if they cannot be read or do not fit together */
function readIdentity({ cert, key, ca }: TlsFiles): Identity {
  try {
    const identity = {
      cert: readFileSync(cert),
      key: readFileSync(key),
      ...(ca !== undefined && { ca: readFileSync(ca) }),
    };
    createSecureContext(identity);
    return identity;
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    const message = `the certificate ${cert} and its private key ${key} cannot be used together: ${reason}`;
    throw new PtpError('failed_precondition', message, { cause });
  }
}

function isSame(a: Identity, b: Identity): boolean {
  const parts = ({ cert, key, ca = Buffer.alloc(0) }: Identity) => Buffer.concat([cert, key, ca]);
  return parts(a).equals(parts(b));
}

/** Unix sockets are protected by file permissions instead of TLS. */
const isLocal = (address: string): boolean => address.startsWith('unix:');

/** Returns the credentials that apply at an address. */
export function tlsAt(address: string, tls: Tls | undefined): Tls | undefined {
  return isLocal(address) ? undefined : tls;
}

export function clientCredentials(address: string, tls: Tls | undefined): ChannelCredentials {
  return tlsAt(address, tls)?.client() ?? credentials.createInsecure();
}

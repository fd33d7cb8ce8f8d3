import { X509Certificate } from 'node:crypto';
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
  /** Names of the settings that contain the paths. Error messages mention them. */
  readonly names?: TlsFiles | undefined;
  /** Interval in milliseconds at which the files are checked for changes. */
  readonly refreshMs?: number;
  /** Called with the error each time changed files cannot be used, for example a certificate without its new key. */
  readonly onError?: (error: PtpError) => void;
  /**
   * Client names that are accepted: a client's certificate must have at least one of them as a DNS name (SAN) or
   * organizational unit (OU). A client with the server's own certificate is admitted too, for health checks. By
   * default, and without mutual TLS, all clients are admitted.
   */
  readonly clients?: readonly string[];
  /** Called with the subject of a client's certificate when the client is refused for the first time. */
  readonly onRefusal?: (subject: string) => void;
}

/** Contents of the files. */
interface Identity {
  readonly cert: Buffer;
  readonly key: Buffer;
  readonly ca?: Buffer;
}

/** Maximum number of different clients that are reported when they are refused. */
const REFUSALS_REPORTED = 100;

/** Interval in milliseconds at which files are checked for changes. */
export const REFRESH_MS = 10_000;

/**
 * A process's TLS identity. Its files are reloaded while the process runs, so certificates can be renewed. If the new
 * files do not fit together, as in the middle of a renewal, the last good ones stay in use.
 */
export class Tls {
  readonly #files: TlsFiles;
  readonly #names: TlsFiles | undefined;
  readonly #onError: (error: PtpError) => void;
  readonly #listeners = new Set<() => void>();
  readonly #provider = new IdentityProvider(this);
  readonly #clients: readonly string[];
  readonly #onRefusal: (subject: string) => void;
  readonly #refused = new Set<string>();
  #current: Identity;
  /** Fingerprint of the current certificate. Parsing the certificate again for each connection would take longer. */
  #fingerprint: string;
  #rejected = '';

  /** @throws PtpError `failed_precondition` if the files cannot be used */
  constructor(files: TlsFiles, options: TlsOptions = {}) {
    const { names, refreshMs = REFRESH_MS, onError = () => {}, clients = [], onRefusal = () => {} } = options;
    this.#files = files;
    this.#clients = clients;
    this.#onRefusal = onRefusal;
    this.#names = names;
    this.#onError = onError;
    this.#current = readIdentity(files, names);
    this.#fingerprint = fingerprintOf(this.#current);
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
      const next = readIdentity(this.#files, this.#names);
      this.#rejected = '';
      if (isSame(next, this.#current)) return;
      this.#current = next;
      this.#fingerprint = fingerprintOf(next);
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

  /** Returns true if a client with the certificate, whose chain has been verified, may call this server. */
  admits(certificate: X509Certificate | undefined): boolean {
    if (!this.mutual || this.#clients.length === 0) return true;
    const isOwn = certificate?.fingerprint256 === this.#fingerprint;
    if (isOwn || (certificate && this.#clients.some((name) => hasName(certificate, name)))) return true;
    const subject = subjectOf(certificate);
    if (!this.#refused.has(subject) && this.#refused.size < REFUSALS_REPORTED) {
      this.#refused.add(subject);
      this.#onRefusal(subject);
    }
    return false;
  }

  client(): ChannelCredentials {
    return this.mutual
      ? experimental.createCertificateProviderChannelCredentials(this.#provider, this.#provider)
      : credentials.createSsl();
  }
}

function fingerprintOf({ cert }: Identity): string {
  return new X509Certificate(cert).fingerprint256;
}

function hasName(certificate: X509Certificate, name: string): boolean {
  if (certificate.checkHost(name, { subject: 'never', wildcards: false })) return true;
  const { OU: units = [] } = (certificate.toLegacyObject().subject ?? {}) as { OU?: string | string[] };
  return [units].flat().includes(name);
}

/** Describes a certificate for the log. Node returns an undefined subject if a certificate's subject is empty. */
function subjectOf(certificate: X509Certificate | undefined): string {
  if (!certificate) return 'no certificate';
  const { subject, subjectAltName } = certificate as { subject?: string; subjectAltName?: string };
  return subject?.replaceAll('\n', ', ') || subjectAltName || 'an empty subject';
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
function readIdentity(files: TlsFiles, names: TlsFiles | undefined): Identity {
  const cert = read('cert');
  const key = read('key');
  try {
    createSecureContext({ cert, key });
  } catch (cause) {
    throw failure(
      `the certificate ${label('cert')} and its private key ${label('key')} cannot be used together`,
      cause,
    );
  }
  if (files.ca === undefined) return { cert, key };
  const ca = read('ca');
  if (!hasCertificates(ca)) throw failure(`the file of authorities ${label('ca')} must contain PEM certificates`);
  return { cert, key, ca };

  function label(part: keyof TlsFiles): string {
    return names ? `${files[part]} (${names[part]})` : String(files[part]);
  }

  function read(part: keyof TlsFiles): Buffer {
    try {
      return readFileSync(String(files[part]));
    } catch (cause) {
      throw failure(`cannot read ${label(part)}`, cause);
    }
  }
}

function failure(message: string, cause?: unknown): PtpError {
  const reason = cause instanceof Error ? `: ${cause.message}` : '';
  return new PtpError('failed_precondition', `${message}${reason}`, { cause });
}

/**
 * Returns true if a PEM file has at least one certificate, and all of them can be parsed. Node ignores everything else
 * in a file of authorities, even if no certificate remains.
 */
function hasCertificates(pem: Buffer): boolean {
  const blocks = pem.toString().match(/-----BEGIN CERTIFICATE-----[\s\S]*?(?:-----END CERTIFICATE-----|$)/g) ?? [];
  try {
    for (const block of blocks) new X509Certificate(block);
  } catch {
    return false;
  }
  return blocks.length > 0;
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

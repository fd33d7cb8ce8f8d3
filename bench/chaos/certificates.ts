import { execFileSync } from 'node:child_process';
import { copyFileSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** Paths of the certificate and the private key of a process, and of the certificate of its authority. */
export interface Identity {
  readonly cert: string;
  readonly key: string;
  readonly ca: string;
}

/** Certificate authority of a fleet. Keeps its files in a folder. */
export class Authority {
  readonly #folder: string;
  readonly #ca: { readonly cert: string; readonly key: string };
  #issued = 0;

  constructor(folder: string) {
    this.#folder = folder;
    this.#ca = this.#create('ca', ['-subj', '/CN=ptp chaos']);
  }

  /** Certificates of the authority (PEM). */
  get pem(): string {
    return readFileSync(this.#ca.cert, 'utf8');
  }

  /** Issues a certificate for the names and for 127.0.0.1. */
  issue(...names: readonly string[]): Identity {
    return this.issueFor(`/CN=${names[0]}`, names);
  }

  issueFor(subject: string, names: readonly string[]): Identity {
    const { cert, key } = this.#ca;
    const subjects = ['IP:127.0.0.1', ...names.map((name) => `DNS:${name}`)].join();
    const files = this.#create(`issued-${this.#issued++}`, [
      ...['-subj', subject, '-CA', cert, '-CAkey', key],
      ...['-addext', `subjectAltName=${subjects}`, '-addext', 'basicConstraints=critical,CA:FALSE'],
    ]);
    return { ...files, ca: cert };
  }

  /** Replaces the certificate of an identity, and returns a function that replaces its key too. */
  renew({ cert, key }: Identity, ...names: readonly string[]): () => void {
    const next = this.issue(...names);
    copyFileSync(next.cert, cert);
    return () => copyFileSync(next.key, key);
  }

  #create(name: string, options: readonly string[]): { readonly cert: string; readonly key: string } {
    const [cert, key] = [join(this.#folder, `${name}.crt`), join(this.#folder, `${name}.key`)];
    const common = ['req', '-x509', '-nodes', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-days', '2'];
    execFileSync('openssl', [...common, ...options, '-keyout', key, '-out', cert], { stdio: 'ignore' });
    return { cert, key };
  }
}

import { readFileSync, watchFile } from 'node:fs';
import type { Server, ServerOptions } from 'node:https';
import { REFRESH_MS, Tls } from '@ptp/protocol/credentials';
import type { SettingsOf } from '@ptp/service-kit/settings';
import { checkFile } from '@ptp/service-kit/tls-settings';
import { httpSettings } from '../settings.ts';

/** TLS of the doors that clients come to. */
export interface DoorTls {
  readonly grpc: Tls;
  readonly https: HttpsDoor;
}

/** What an HTTPS server begins with, and how its certificate is renewed while it runs. */
export interface HttpsDoor {
  readonly options: ServerOptions;
  /** Reads the files again when they change; a pair that does not fit is left alone, and the one before stays. */
  follow(server: Server, onError: (error: unknown) => void): void;
}

/**
 * TLS of the doors as the settings have it; undefined for none.
 *
 * @throws PtpError `failed_precondition` naming the setting whose file is missing
 */
export async function loadDoorTls(
  config: Pick<SettingsOf<typeof httpSettings>, 'httpCert' | 'httpKey'>,
  refreshMs = REFRESH_MS,
): Promise<DoorTls | undefined> {
  const { httpCert: cert, httpKey: key } = config;
  if (cert === '' && key === '') return undefined;
  await checkFile(cert, httpSettings.httpCert.name);
  await checkFile(key, httpSettings.httpKey.name);
  const read = () => ({ cert: readFileSync(cert), key: readFileSync(key) });
  return {
    grpc: new Tls({ cert, key }, refreshMs),
    https: {
      options: { ...read(), minVersion: 'TLSv1.2' },
      follow(server, onError) {
        const renew = () => {
          try {
            server.setSecureContext(read());
          } catch (error) {
            onError(error);
          }
        };
        for (const file of [cert, key]) watchFile(file, { interval: refreshMs, persistent: false }, renew);
      },
    },
  };
}

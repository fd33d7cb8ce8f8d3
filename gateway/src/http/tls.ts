import { readFileSync, watchFile } from 'node:fs';
import type { Server, ServerOptions } from 'node:https';
import { REFRESH_MS, Tls } from '@ptp/protocol/credentials';
import type { SettingsOf } from '@ptp/service-kit/settings';
import { checkFile } from '@ptp/service-kit/tls-settings';
import { gatewaySettings } from '../settings.ts';

/** Options of the HTTPS server, and the function that renews its certificate. */
export type HttpsListener = NonNullable<Awaited<ReturnType<typeof loadListenerTls>>>['https'];

/**
 * Loads the TLS credentials of the HTTP and gRPC servers. Returns undefined if the settings name no files.
 *
 * @throws PtpError `failed_precondition` naming the setting whose file is missing
 */
export async function loadListenerTls(
  config: Pick<SettingsOf<typeof gatewaySettings>, 'httpCert' | 'httpKey'>,
  refreshMs = REFRESH_MS,
) {
  const { httpCert: cert, httpKey: key } = config;
  if (cert === '' && key === '') return undefined;
  await checkFile(cert, gatewaySettings.httpCert.name);
  await checkFile(key, gatewaySettings.httpKey.name);
  const read = () => ({ cert: readFileSync(cert), key: readFileSync(key) });
  return {
    grpc: new Tls({ cert, key }, refreshMs),
    https: {
      options: { ...read(), minVersion: 'TLSv1.2' } satisfies ServerOptions,
      /** Reloads the files when they change. Keeps the current certificate and key if the new ones do not match. */
      follow(server: Server, onError: (error: unknown) => void) {
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

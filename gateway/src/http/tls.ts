import { readFileSync, watchFile } from 'node:fs';
import type { Server, ServerOptions } from 'node:https';
import { REFRESH_MS, Tls } from '@ptp/protocol/credentials';
import type { SettingsOf } from '@ptp/service-kit/settings';
import { checkFile } from '@ptp/service-kit/tls-settings';
import { gatewaySettings } from '../settings.ts';

/** Options of an HTTPS server, and the renewal of its certificate. */
export type HttpsListener = NonNullable<Awaited<ReturnType<typeof loadListenerTls>>>['https'];

/**
 * TLS of the HTTP and gRPC listeners, as the settings have it; undefined for none.
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
      /** Reloads the files when they change; keeps the current pair if the new one does not match. */
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

import type { Server, ServerOptions } from 'node:https';
import type { Tls, TlsOptions } from '@ptp/protocol/credentials';
import type { SettingsOf } from '@ptp/service-kit/settings';
import { loadIdentity } from '@ptp/service-kit/tls-settings';
import { gatewaySettings } from '../settings.ts';

/** Options of the HTTPS server, and the function that renews its certificate. */
export interface HttpsListener {
  readonly options: ServerOptions;
  /** Applies each renewed certificate to the server. */
  follow(server: Server): void;
}

/**
 * Loads the TLS credentials of the HTTP and gRPC servers. Returns undefined if the settings name no files.
 *
 * @throws PtpError `failed_precondition` naming the setting whose file is missing
 */
export async function loadListenerTls(
  config: Pick<SettingsOf<typeof gatewaySettings>, 'httpCert' | 'httpKey'>,
  options: TlsOptions = {},
): Promise<{ readonly grpc: Tls; readonly https: HttpsListener } | undefined> {
  const { httpCert, httpKey } = gatewaySettings;
  const names = { cert: httpCert.name, key: httpKey.name };
  const tls = await loadIdentity({ cert: config.httpCert, key: config.httpKey }, names, options);
  if (!tls) return undefined;
  const follow = (server: Server) => {
    const renew = () => server.setSecureContext(tls.serverOptions());
    tls.onRenewal(renew);
    server.on('close', () => tls.removeListener(renew));
  };
  return { grpc: tls, https: { options: tls.serverOptions(), follow } };
}

/**
 * Container health check: exits with status 0 if a service is healthy, else 1.
 *
 *   node service-kit/src/health-check.ts ADDRESS   gRPC health of host:port or unix:/path, with PTP_TLS_* if set
 *   node service-kit/src/health-check.ts URL       healthy if it returns a 2xx status
 */

import { checkHealth } from '@ptp/protocol/health';
import { settings } from './settings.ts';
import { loadTls, tlsSettings } from './tls-settings.ts';

async function isHealthy(target: string): Promise<boolean> {
  if (/^https?:/.test(target)) return (await fetch(target, { signal: AbortSignal.timeout(2500) })).ok;
  const tls = await loadTls(settings(tlsSettings, process.env));
  return (await checkHealth(target, undefined, { deadlineMs: 2500 }, tls)) === 'SERVING';
}

const [target] = process.argv.slice(2);
if (!target) throw new Error('usage: node service-kit/src/health-check.ts ADDRESS|URL');
const healthy = await isHealthy(target).catch((error) => {
  console.error(error instanceof Error ? error.message : error);
  return false;
});
process.exit(healthy ? 0 : 1);

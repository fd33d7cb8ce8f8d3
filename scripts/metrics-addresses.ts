import { serviceSettings } from '@ptp/service-kit/service-settings';
import { type Address, settings } from '@ptp/service-kit/settings';

/**
 * Returns PTP_METRICS_LISTEN for services on one machine: the given address for the verifier, and the next port (or
 * socket) for the drafter.
 */
export function metricsAddresses(env: NodeJS.ProcessEnv): { verifier: NodeJS.ProcessEnv; drafter: NodeJS.ProcessEnv } {
  const { name } = serviceSettings.metrics;
  const { metrics } = settings({ metrics: serviceSettings.metrics }, env);
  const list = (of: (address: Address) => string) => ({ [name]: metrics.map(of).join(',') });
  return { verifier: list(({ target }) => target), drafter: list(next) };
}

function next(address: Address): string {
  if ('path' in address) return `${address.target}.drafter`;
  const { target, port } = address;
  return port === 0 ? target : target.replace(/\d+$/, String(port + 1));
}

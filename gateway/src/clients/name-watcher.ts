import { lookup } from 'node:dns/promises';
import { isIP, isIPv4 } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

/** Interval in milliseconds at which names are resolved again. */
export const RESOLVE_MS = 2_000;

/** Resolves a name to all of its addresses. */
export type Resolve = (name: string) => Promise<readonly string[]>;

const systemResolve: Resolve = async (name) => (await lookup(name, { all: true })).map(({ address }) => address);

/** One instance of a service. */
export interface Endpoint {
  /** gRPC target with an IP address or a path. */
  readonly target: string;
  /** Name in the instance's certificate, if the address was found by a name. */
  readonly name?: string;
}

export interface WatchOptions {
  readonly resolve?: Resolve | undefined;
  readonly resolveMs?: number | undefined;
  readonly signal: AbortSignal;
  /** Called with all endpoints of an address, at first and after each change. */
  readonly onChange: (endpoints: readonly Endpoint[]) => void;
  /** Called each time the name has been resolved. */
  readonly onSuccess?: () => void;
  /** Called each time the name cannot be resolved. The last endpoints stay in use. */
  readonly onFailure: (error: unknown) => void;
}

/**
 * Watches which instances an address stands for. A DNS name, such as that of a headless Kubernetes service, stands for
 * one instance per IP address. gRPC itself resolves a name again only when a connection is lost, so it would not
 * find added instances.
 *
 * @param address `host:port` or `unix:/path`
 */
export async function watchName(
  address: string,
  { resolve = systemResolve, resolveMs = RESOLVE_MS, signal, onChange, onSuccess, onFailure }: WatchOptions,
): Promise<void> {
  const [, name = '', port = ''] = /^([^[\]/]+):(\d+)$/.exec(address) ?? [];
  if (name === '' || name === 'localhost' || isIP(name) !== 0 || address.startsWith('unix:')) {
    onChange([{ target: address }]);
    return;
  }
  let known = '';
  while (!signal.aborted) {
    try {
      const found = oneFamily(await resolve(name));
      if (signal.aborted) return;
      onSuccess?.();
      if (found.length > 0 && found.join() !== known) {
        onChange(found.map((ip) => ({ target: isIP(ip) === 6 ? `[${ip}]:${port}` : `${ip}:${port}`, name })));
        known = found.join();
      }
    } catch (error) {
      onFailure(error);
    }
    await sleep(resolveMs, undefined, { signal, ref: false }).catch(() => {});
  }
}

/** Returns the IPv4 addresses, or the IPv6 ones if there are no others, because each instance may have both. */
function oneFamily(addresses: readonly string[]): string[] {
  const all = [...new Set(addresses)].sort();
  const old = all.filter(isIPv4);
  return old.length > 0 ? old : all;
}

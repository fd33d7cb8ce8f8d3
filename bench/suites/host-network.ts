import { execFileSync } from 'node:child_process';
import { BadNetwork } from '../chaos/bad-network.ts';

const BRIDGE = 'ptp-bridge';
const PREFIX = '10.213.7';

/** A network namespace with its own address, which stands for another machine. */
export interface Host {
  readonly name: string;
  readonly address: string;
}

/**
 * Connects the hosts and this process by one bridge. Requires Linux, root and iproute2. If the kernel has the netem module, tc netem adds
 * the delays; otherwise a proxy in this process does, in front of each port.
 */
export class HostNetwork {
  readonly hosts: readonly Host[];
  readonly #proxies: { readonly host: Host; readonly proxy: BadNetwork }[] = [];
  readonly #netem: boolean;

  private constructor(hosts: readonly Host[], netem: boolean) {
    this.hosts = hosts;
    this.#netem = netem;
  }

  /** @throws Error if namespaces cannot be created */
  static start(names: readonly string[]): HostNetwork {
    const hosts = names.map((name, i) => ({ name: `ptp-${name}`, address: `${PREFIX}.${11 + i}` }));
    removeAll(hosts);
    try {
      ip('link', 'add', BRIDGE, 'type', 'bridge');
      ip('addr', 'add', `${PREFIX}.1/24`, 'dev', BRIDGE);
      ip('link', 'set', BRIDGE, 'up');
      for (const [i, { name, address }] of hosts.entries()) {
        ip('netns', 'add', name);
        ip('link', 'add', `ptp-near${i}`, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', name);
        ip('link', 'set', `ptp-near${i}`, 'master', BRIDGE, 'up');
        ip('-n', name, 'addr', 'add', `${address}/24`, 'dev', 'eth0');
        ip('-n', name, 'link', 'set', 'eth0', 'up');
        ip('-n', name, 'link', 'set', 'lo', 'up');
      }
    } catch (cause) {
      removeAll(hosts);
      throw new Error('cannot create network namespaces: `hosts` requires Linux, root and iproute2', { cause });
    }
    const [first] = hosts;
    return new HostNetwork(hosts, first !== undefined && delays(first, 0));
  }

  get delayedBy(): 'netem' | 'proxy' {
    return this.#netem ? 'netem' : 'proxy';
  }

  /** Returns the address at which this process reaches a port of a host, through the delay. */
  async reach(host: Host, port: number): Promise<string> {
    if (this.#netem) return `${host.address}:${port}`;
    const proxy = await BadNetwork.start(port, host.address);
    this.#proxies.push({ host, proxy });
    return `127.0.0.1:${proxy.port}`;
  }

  /** Sets the delay between this process and a host, in milliseconds for each direction. */
  delay(host: Host, milliseconds: number): void {
    for (const { host: of, proxy } of this.#proxies) if (of === host) proxy.delayMs = milliseconds;
    if (!this.#netem) return;
    // the interface of the host delays one direction, the port of the bridge delays the other
    delays(host, milliseconds);
    const port = `ptp-near${this.hosts.indexOf(host)}`;
    netem(['qdisc', 'replace', 'dev', port, 'root', 'netem', 'delay', `${milliseconds}ms`]);
  }

  stop(): void {
    for (const { proxy } of this.#proxies) proxy.close();
    removeAll(this.hosts);
  }
}

function ip(...words: string[]): void {
  execFileSync('ip', words, { stdio: 'pipe' });
}

/** @returns true if the kernel has netem */
function netem(words: readonly string[]): boolean {
  try {
    execFileSync('tc', words, { stdio: 'pipe' });
    return true;
  } catch {
    return false;
  }
}

function delays({ name }: Host, milliseconds: number): boolean {
  return netem(['-n', name, 'qdisc', 'replace', 'dev', 'eth0', 'root', 'netem', 'delay', `${milliseconds}ms`]);
}

function removeAll(hosts: readonly Host[]): void {
  const gone = (...words: string[]) => {
    try {
      ip(...words);
    } catch {
      // it did not exist
    }
  };
  for (const { name } of hosts) gone('netns', 'del', name);
  gone('link', 'del', BRIDGE);
}

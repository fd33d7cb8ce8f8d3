import { VerifierService } from '@ptp/protocol/gen/ptp/v1/verifier_pb';
import { implement, type RunningServer, serve } from '@ptp/protocol/server';
import { createLogger } from '@ptp/service-kit/log';
import { afterEach, expect, test } from 'vitest';
import { silent } from '../../../test/test-pair.ts';
import type { Resolve } from '../../src/clients/name-watcher.ts';
import { ReplicaPool } from '../../src/clients/replica-pool.ts';
import { startDns } from '../testing/dns-server.ts';

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function startVerifier(address: string): Promise<RunningServer> {
  const services = [implement(VerifierService, { getTarget: () => ({}), async *verify() {} })];
  const server = await serve({ address, logger: silent, services });
  cleanups.push(() => server.close(0));
  return server;
}

function startPool(address: string, { resolve }: { readonly resolve?: Resolve } = {}) {
  const logs: Record<string, unknown>[] = [];
  const write = (line: string) => void logs.push(JSON.parse(line));
  const logger = createLogger('gateway', { PTP_LOG_LEVEL: 'warn' }, { write });
  const check = async () => {};
  const pool = new ReplicaPool([address], { service: VerifierService, logger, check, resolve, resolveMs: 50 });
  cleanups.push(() => pool.close());
  /** Targets to which four new streams would go. */
  const targets = () => {
    const leases = Array.from({ length: 4 }, () => pool.lease());
    for (const lease of leases) lease?.leave(false);
    return [...new Set(leases.map((lease) => lease?.address))].sort();
  };
  return { pool, logs, targets };
}

test('instances that are added behind a name get new streams, and removed ones keep theirs until they end', async () => {
  const first = await startVerifier('127.0.0.1:0');
  const port = first.address.split(':')[1];
  await startVerifier(`127.0.0.2:${port}`);
  await startVerifier(`127.0.0.3:${port}`);
  const dns = await startDns(['127.0.0.1']);
  cleanups.push(() => dns.close());
  const { pool, targets } = startPool(`verifier.test:${port}`, { resolve: dns.resolve });
  await expect.poll(targets).toEqual([`127.0.0.1:${port}`]);

  dns.set(['127.0.0.1', '127.0.0.2', '127.0.0.3']);
  await expect.poll(targets, { timeout: 5000 }).toHaveLength(3);

  const kept = Array.from({ length: 3 }, () => pool.lease()).find((lease) => lease?.address === `127.0.0.1:${port}`);
  dns.set(['127.0.0.2']);
  await expect.poll(targets, { timeout: 5000 }).toEqual([`127.0.0.2:${port}`]);
  expect(await kept?.client.getTarget({})).toBeDefined();
  kept?.leave(false);
  await expect(kept?.client.getTarget({}, { deadlineMs: 1000 })).rejects.toThrow();

  // A name that cannot be resolved any more keeps its last instances.
  dns.set([]);
  await new Promise((resolve) => setTimeout(resolve, 300));
  expect(targets()).toEqual([`127.0.0.2:${port}`]);
});

test.each([
  ['a name that does not exist', 'no-such-host.invalid:1', 'its name cannot be resolved'],
  ['a port at which nothing listens', '127.0.0.1:1', 'nothing listens at its address'],
  ['a socket that does not exist', 'unix:/no/such.sock', 'nothing listens at its address'],
])('says once why %s cannot be reached', async (_, address, reason) => {
  const { logs } = startPool(address);
  await expect.poll(() => logs, { timeout: 5000 }).toHaveLength(1);
  await new Promise((resolve) => setTimeout(resolve, 600));
  expect(logs).toEqual([expect.objectContaining({ level: 'warn', reason, peer: 'ptp.v1.VerifierService' })]);
});

test('reports once per outage that a name cannot be resolved', async () => {
  const { address } = await startVerifier('127.0.0.1:0');
  let isDown = false;
  const resolve = async () => {
    if (isDown) throw Object.assign(new Error('getaddrinfo EAI_AGAIN'), { code: 'EAI_AGAIN' });
    return ['127.0.0.1'];
  };
  const { logs, targets } = startPool(`verifier.test:${address.split(':')[1]}`, { resolve });
  await expect.poll(targets).toEqual([address]);
  for (const outages of [1, 2]) {
    isDown = true;
    await expect.poll(() => logs.length).toBe(outages);
    isDown = false;
    await new Promise((done) => setTimeout(done, 300));
    expect(logs).toHaveLength(outages);
  }
});

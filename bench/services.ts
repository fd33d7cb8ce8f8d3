import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadManifest } from '@ptp/protocol/manifest';
import { createLogger } from '@ptp/service-kit/log';
import { modelInfoOf, PairClient, type PairClientOptions } from '../gateway/src/clients/pair-client.ts';
import { PairGenerator } from '../gateway/src/decode/generate.ts';
import type { DraftLimits } from '../gateway/src/decode/types.ts';
import { BadNetwork } from './chaos/bad-network.ts';
import { fakeModel } from './fake-model.ts';

/** A verifier and a drafter in child processes, and the gateway's decode loop in the current process. */
export type Bench = Awaited<ReturnType<typeof startPair>>;

export interface ServiceOptions {
  /** True if a prompt may reuse the cache of an earlier pass. */
  readonly prefixCache?: boolean;
  /** Folder of a complete model that drafts instead of the pair's drafter. */
  readonly draftModel?: string | undefined;
  /** True to reach each service through a network whose delay can be changed. */
  readonly networks?: boolean;
}

type Kind = 'verifier' | 'drafter';
const KINDS: readonly Kind[] = ['verifier', 'drafter'];
const START_TIMEOUT_MS = 120_000;

/** Starts the services for a model folder. */
export async function startServices(
  models: string,
  limits: DraftLimits,
  { prefixCache = false, draftModel, networks = false }: ServiceOptions = {},
): Promise<Bench> {
  const env = {
    PTP_MODEL: models,
    PTP_ENGINE_THREADS: process.env.PTP_ENGINE_THREADS ?? '1',
    ...(!prefixCache && { PTP_PREFIX_CACHE_MB: '0' }),
    ...(draftModel && { PTP_DRAFT_MODEL: draftModel }),
  };
  const mainOf = (kind: Kind) => join(import.meta.dirname, '..', kind, 'src', 'main.ts');
  // PTP_ENGINE is the engine of the target. A draft model runs in the drafter's own process.
  const start = (kind: Kind, address: string) =>
    spawnService([mainOf(kind)], address, { ...env, ...(kind === 'drafter' && draftModel && { PTP_ENGINE: '' }) });
  return startPair(modelInfoOf(await loadManifest(models)), limits, networks, start);
}

/**
 * Starts the same services with fake fixed-latency engines.
 *
 * @param latency duration of a run in milliseconds
 * @param checks true for a drafter that checks blocks
 */
export function startFakeServices(
  latency: Readonly<Record<Kind, number>>,
  limits: DraftLimits,
  checks: boolean,
): Promise<Bench> {
  const script = join(import.meta.dirname, 'fake-service.ts');
  return startPair(fakeModel, limits, false, (kind, address) =>
    spawnService([script, kind, address, String(latency[kind]), ...(checks ? ['checks'] : [])], address),
  );
}

function spawnService(command: readonly string[], address: string, env: NodeJS.ProcessEnv = {}): ChildProcess {
  return spawn(process.execPath, command, {
    env: { ...process.env, PTP_LOG_LEVEL: 'warn', ...env, PTP_LISTEN: address },
    stdio: ['ignore', 'inherit', 'inherit'],
  });
}

/** Connects with long timeouts and without failover. */
async function startPair(
  model: PairClientOptions['model'],
  limits: DraftLimits,
  hasNetworks: boolean,
  start: (kind: Kind, address: string) => ChildProcess,
) {
  const folder = await mkdtemp(join(tmpdir(), 'ptp-bench-'));
  const children: ChildProcess[] = [];
  const networks: Partial<Record<Kind, BadNetwork>> = {};
  const addresses = { verifier: '', drafter: '' };
  for (const kind of KINDS) {
    const path = join(folder, `${kind}.sock`);
    children.push(start(kind, `unix:${path}`));
    if (hasNetworks) networks[kind] = await BadNetwork.start({ path });
    addresses[kind] = networks[kind] ? `127.0.0.1:${networks[kind].port}` : `unix:${path}`;
  }
  const services = new PairClient({
    model,
    verifiers: [addresses.verifier],
    drafters: [addresses.drafter],
    recoveryMs: 0,
    draftTimeoutMs: 2000,
    draftLength: 8,
    verifyTimeoutMs: 60_000,
    logger: createLogger('bench', { PTP_LOG_LEVEL: 'warn' }),
  });
  const stop = async () => {
    services.close();
    for (const network of Object.values(networks)) network.close();
    for (const child of children) {
      if (child.exitCode === null && child.signalCode === null && child.kill('SIGTERM')) await once(child, 'exit');
    }
    await rm(folder, { recursive: true, force: true });
  };
  const ended = children.map(async (child, i) => {
    const [code] = await once(child, 'exit');
    throw new Error(`the ${KINDS[i]} ended with exit code ${code}`);
  });
  for (const end of ended) end.catch(() => {});
  try {
    await Promise.race([services.ready(START_TIMEOUT_MS), ...ended]);
  } catch (error) {
    await stop();
    throw error;
  }
  /** Creates another decode loop over the same services, with its own limits and measurements. */
  const another = (own: DraftLimits) => new PairGenerator(services, own);
  return { generator: another(limits), streams: services, networks, another, stop };
}

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadManifest } from '@ptp/protocol/manifest';
import { createLogger } from '@ptp/service-kit/log';
import { modelInfoOf, PairClient, type PairClientOptions } from '../gateway/src/clients/pair-client.ts';
import { PairGenerator } from '../gateway/src/decode/generate.ts';
import type { Streams } from '../gateway/src/decode/ports.ts';
import type { DraftLimits } from '../gateway/src/decode/types.ts';
import { fakeModel } from './fake-model.ts';

/** Runs the verifier and the drafter as child processes, and the gateway's decode loop in the current process. */
export interface Bench {
  readonly generator: PairGenerator;
  readonly streams: Streams;
  /** Creates another decode loop over the same services, with its own limits and measurements. */
  another(limits: DraftLimits): PairGenerator;
  readonly pids: Readonly<Record<Kind, number>>;
  stop(): Promise<void>;
}

type Kind = 'verifier' | 'drafter';

const START_TIMEOUT_MS = 120_000;
const KINDS: readonly Kind[] = ['verifier', 'drafter'];
const ROOT = join(import.meta.dirname, '..');

/** Environment of a service process that listens on `address`. */
export const serviceEnv = (address: string, settings: NodeJS.ProcessEnv): NodeJS.ProcessEnv => ({
  ...process.env,
  PTP_LOG_LEVEL: 'warn',
  ...settings,
  PTP_LISTEN: address,
});

export const mainOf = (kind: Kind): string => join(ROOT, kind, 'src', 'main.ts');

/**
 * Starts drafter and verifier on Unix sockets.
 *
 * @param prefixCache true to let a prompt reuse the cache of an earlier pass
 * @param draftModel folder of a complete model to draft with, in place of the pair's drafter
 */
export async function startServices(
  models: string,
  limits: DraftLimits,
  prefixCache: boolean,
  draftModel?: string,
): Promise<Bench> {
  const settings = {
    PTP_MODEL: models,
    ...(!prefixCache && { PTP_PREFIX_CACHE_MB: '0' }),
    ...(draftModel && { PTP_DRAFT_MODEL: draftModel }),
  };
  const start = (kind: Kind, address: string) => spawnNode([mainOf(kind)], serviceEnv(address, settings));
  return startPair(modelInfoOf(await loadManifest(models)), limits, start);
}

/**
 * Starts the same services with fake engines of fixed latency.
 *
 * @param latency milliseconds per run
 * @param checks true for a drafter that checks blocks
 */
export function startFakeServices(
  latency: Readonly<Record<Kind, number>>,
  limits: DraftLimits,
  checks: boolean,
): Promise<Bench> {
  const script = join(import.meta.dirname, 'fake-service.ts');
  return startPair(fakeModel, limits, (kind, address) => {
    const command = [script, kind, address, String(latency[kind]), ...(checks ? ['checks'] : [])];
    return spawnNode(command, serviceEnv(address, {}));
  });
}

const spawnNode = (command: readonly string[], env: NodeJS.ProcessEnv): ChildProcess =>
  spawn(process.execPath, command, { env, stdio: ['ignore', 'inherit', 'inherit'] });

async function startPair(
  model: PairClientOptions['model'],
  limits: DraftLimits,
  start: (kind: Kind, address: string) => ChildProcess,
): Promise<Bench> {
  const folder = await mkdtemp(join(tmpdir(), 'ptp-bench-'));
  const addressOf = (kind: Kind) => `unix:${folder}/${kind}.sock`;
  const children = KINDS.map((kind) => start(kind, addressOf(kind)));
  const services = connectServices(model, [addressOf('verifier')], [addressOf('drafter')]);
  const stop = async () => {
    services.close();
    await endAll(children);
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
  const another = (own: DraftLimits) => new PairGenerator(services, own);
  const [verifier = 0, drafter = 0] = children.map(({ pid }) => pid);
  return { generator: another(limits), streams: services, another, pids: { verifier, drafter }, stop };
}

/** Connects for a measurement, with long timeouts and without failover. */
export function connectServices(
  model: PairClientOptions['model'],
  verifiers: readonly string[],
  drafters: readonly string[],
): PairClient {
  const logger = createLogger('bench', { PTP_LOG_LEVEL: 'warn' });
  const timeouts = { recoveryMs: 0, draftTimeoutMs: 2000, verifyTimeoutMs: 60_000 };
  return new PairClient({ model, verifiers, drafters, ...timeouts, logger });
}

/** Ends those processes that still run, one after the other, with SIGTERM. */
export async function endAll(children: readonly ChildProcess[]): Promise<void> {
  for (const child of children) {
    if (child.exitCode !== null || child.signalCode !== null) continue;
    child.kill('SIGTERM');
    await once(child, 'exit');
  }
}

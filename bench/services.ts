import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadManifest } from '@ptp/protocol/manifest';
import { createLogger } from '@ptp/service-kit/log';
import { modelInfoOf, PairClient, type PairClientOptions } from '../gateway/src/clients/pair-client.ts';
import type { DraftLimits } from '../gateway/src/decode/controller.ts';
import { PairGenerator } from '../gateway/src/decode/generate.ts';
import type { Streams } from '../gateway/src/decode/ports.ts';
import { fakeFacts } from './fake-facts.ts';

/** The two services as processes of their own, and the gateway's loop in this one. */
export interface Bench {
  readonly generator: PairGenerator;
  /** What it is over. */
  readonly streams: Streams;
  /** Another loop over the same services, with limits and measurements of its own. */
  another(limits: DraftLimits): PairGenerator;
  /** Of the services' processes. */
  readonly pids: Readonly<Record<Kind, number>>;
  stop(): Promise<void>;
}

type Kind = 'verifier' | 'drafter';

const START_TIMEOUT_MS = 60_000;
const KINDS: readonly Kind[] = ['verifier', 'drafter'];
const ROOT = join(import.meta.dirname, '..');

/**
 * Starts drafter and verifier on unix sockets.
 *
 * @param models the pair's folder
 * @param prefixCache whether a prompt may profit from another pass over it
 * @param draftModel folder of a whole model that drafts in the place of the pair's drafter
 */
export async function startServices(
  models: string,
  limits: DraftLimits,
  prefixCache: boolean,
  draftModel?: string,
): Promise<Bench> {
  const command = (kind: Kind) => [join(ROOT, kind, 'src', 'main.ts')];
  const settings = {
    PTP_MODELS: models,
    ...(!prefixCache && { PTP_PREFIX_CACHE_MB: '0' }),
    ...(draftModel && { PTP_DRAFT_MODEL: draftModel }),
  };
  return start(modelInfoOf(await loadManifest(models)), limits, command, settings);
}

/** The same services with engines of fixed latency: milliseconds a run takes. @param checks whether the drafter checks blocks */
export async function startFakeServices(
  latency: Readonly<Record<Kind, number>>,
  limits: DraftLimits,
  checks: boolean,
): Promise<Bench> {
  const command = (kind: Kind, address: string) => [
    join(ROOT, 'bench', 'fake-service.ts'),
    kind,
    address,
    String(latency[kind]),
    ...(checks ? ['checks'] : []),
  ];
  return start(fakeFacts, limits, command, {});
}

async function start(
  model: PairClientOptions['model'],
  limits: DraftLimits,
  command: (kind: Kind, address: string) => string[],
  settings: NodeJS.ProcessEnv,
): Promise<Bench> {
  const folder = await mkdtemp(join(tmpdir(), 'ptp-bench-'));
  const addressOf = (kind: Kind) => `unix:${folder}/${kind}.sock`;
  const children: ChildProcess[] = KINDS.map((kind) =>
    spawn(process.execPath, command(kind, addressOf(kind)), {
      env: {
        ...process.env,
        ...settings,
        PTP_LOG_LEVEL: 'warn',
        [`PTP_${kind.toUpperCase()}_ADDRESS`]: addressOf(kind),
      },
      stdio: ['ignore', 'inherit', 'inherit'],
    }),
  );
  const services = servicesAt(model, [addressOf('verifier')], [addressOf('drafter')]);
  const stop = async () => {
    services.close();
    await endAll(children);
    await rm(folder, { recursive: true, force: true });
  };
  try {
    await services.ready(START_TIMEOUT_MS);
  } catch (error) {
    await stop();
    throw error;
  }
  const another = (own: DraftLimits) => new PairGenerator(services, own);
  const [verifier = 0, drafter = 0] = children.map(({ pid }) => pid);
  return { generator: another(limits), streams: services, another, pids: { verifier, drafter }, stop };
}

/** The services at these addresses, for a bench: slow answers are waited for, and nothing is moved elsewhere. */
export function servicesAt(
  model: PairClientOptions['model'],
  verifiers: readonly string[],
  drafters: readonly string[],
): PairClient {
  const logger = createLogger('bench', { PTP_LOG_LEVEL: 'warn' });
  return new PairClient({
    model,
    verifiers,
    drafters,
    recoveryMs: 0,
    draftTimeoutMs: 2000,
    verifyTimeoutMs: 60_000,
    logger,
  });
}

/** Ends those that still run, in order. */
export async function endAll(children: readonly ChildProcess[]): Promise<void> {
  for (const child of children) {
    if (child.exitCode !== null || child.signalCode !== null) continue;
    child.kill('SIGTERM');
    await once(child, 'exit');
  }
}

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadManifest } from '@ptp/core/engine/manifest.ts';
import { createLogger } from '@ptp/core/log.ts';
import type { DraftLimits } from '../gateway/src/controller.ts';
import { PairGenerator } from '../gateway/src/generate.ts';
import { pairFacts } from '../gateway/src/pair.ts';
import { Services } from '../gateway/src/services.ts';

/** The two services as processes of their own, and the gateway's loop in this one. */
export interface Bench {
  readonly generator: PairGenerator;
  stop(): Promise<void>;
}

const START_TIMEOUT_MS = 60_000;

/** Starts drafter and verifier on unix sockets. @param models the pair's folder */
export async function startServices(models: string, limits: DraftLimits): Promise<Bench> {
  const folder = await mkdtemp(join(tmpdir(), 'ptp-bench-'));
  const addresses = { verifier: `unix:${folder}/verifier.sock`, drafter: `unix:${folder}/drafter.sock` };
  const children = (['verifier', 'drafter'] as const).map((service) =>
    spawn(process.execPath, [join(import.meta.dirname, '..', service, 'src', 'main.ts')], {
      env: {
        ...process.env,
        PTP_MODELS: models,
        PTP_LOG_LEVEL: 'warn',
        [`PTP_${service.toUpperCase()}_ADDRESS`]: addresses[service],
      },
      stdio: ['ignore', 'inherit', 'inherit'],
    }),
  );
  const services = new Services({
    facts: pairFacts(await loadManifest(models)),
    verifierAddress: addresses.verifier,
    drafterAddress: addresses.drafter,
    draftTimeoutMs: 2000,
    verifyTimeoutMs: 60_000,
    logger: createLogger('bench', { PTP_LOG_LEVEL: 'warn' }),
  });
  const stop = async () => {
    services.close();
    for (const child of children) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      child.kill('SIGTERM');
      await once(child, 'exit');
    }
    await rm(folder, { recursive: true, force: true });
  };
  try {
    await services.ready(START_TIMEOUT_MS);
  } catch (error) {
    await stop();
    throw error;
  }
  return { generator: new PairGenerator(services, limits), stop };
}

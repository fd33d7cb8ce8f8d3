import { AutoregressiveDraftEngine, checkDraftModel } from '@ptp/engine/draft-model';
import { engineMetrics } from '@ptp/engine/engine-metrics';
import { modelFacts } from '@ptp/engine/model-info';
import { type OnnxEngineOptions, openDraftEngine, openTargetEngine } from '@ptp/engine/onnx/engine';
import type { DraftEngine } from '@ptp/engine/types';
import { loadManifest, type Manifest } from '@ptp/protocol/manifest';
import { serve } from '@ptp/protocol/server';
import { endWhen, runService } from '@ptp/service-kit/lifecycle';
import { serveMetrics, startMetrics } from '@ptp/service-kit/metrics';
import { settings } from '@ptp/service-kit/settings';
import { loadTls } from '@ptp/service-kit/tls-settings';
import { startTracing } from '@ptp/service-kit/tracing';
import { Drafter } from './drafter.ts';
import { drafterService } from './service.ts';
import { drafterSettings } from './settings.ts';

/** A whole model as the drafter of a pair's target. */
async function openDraftModel(pair: Manifest, options: OnnxEngineOptions): Promise<DraftEngine> {
  checkDraftModel(await loadManifest(options.dir), pair, drafterSettings.draftModel.name);
  return new AutoregressiveDraftEngine(await openTargetEngine(options));
}

await runService('drafter', async (logger, onStop) => {
  const config = settings(drafterSettings, process.env);
  const tracing = await startTracing('ptp-drafter');
  onStop(() => tracing.stop());
  const manifest = await loadManifest(config.models);
  const options = { threads: config.threads, prefixCacheBytes: config.prefixCacheMegabytes * 1e6 };
  const engine = config.draftModel
    ? await openDraftModel(manifest, { dir: config.draftModel, ...options })
    : await openDraftEngine({ dir: config.models, ...options });
  onStop(() => engine.dispose());
  endWhen(engine.died, logger);
  const metrics = await startMetrics('ptp-drafter', manifest.id);
  onStop(() => metrics.stop());
  for (const address of config.metrics) {
    const served = await serveMetrics(metrics, address, drafterSettings.metrics.name);
    onStop(() => served.stop());
  }
  const limits = {
    budget: config.budgetLimit,
    block: config.blockLimit,
    prefillChunk: config.prefillChunk,
    batchTokens: config.batchTokens,
    sequences: config.sequences,
    queue: config.queue,
  };
  const drafter = new Drafter(engine, limits, engineMetrics(metrics.meter, engine));
  const server = await serve({
    address: config.address.target,
    setting: drafterSettings.address.name,
    logger,
    tls: await loadTls(config),
    stallMillis: config.stallMillis,
    services: [drafterService(drafter, modelFacts(manifest))],
  });
  onStop(() => server.close(config.drainSeconds * 1000));
});

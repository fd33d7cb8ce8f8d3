import { AutoregressiveDraftEngine, checkDraftModel } from '@ptp/core/engine/autoregressive-engine.ts';
import type { DraftEngine } from '@ptp/core/engine/engine.ts';
import { loadManifest, type Manifest } from '@ptp/core/engine/manifest.ts';
import { type OnnxEngineOptions, openDraftEngine, openTargetEngine } from '@ptp/core/engine/onnx-engine.ts';
import { settings } from '@ptp/core/env.ts';
import { endWhen, runService } from '@ptp/core/lifecycle.ts';
import { modelFacts } from '@ptp/core/model-facts.ts';
import { serve } from '@ptp/core/rpc/server.ts';
import { loadTls } from '@ptp/core/rpc/tls.ts';
import { engineMetrics } from '@ptp/core/telemetry/engine-metrics.ts';
import { serveMetrics, startMetrics } from '@ptp/core/telemetry/metrics.ts';
import { startTracing } from '@ptp/core/telemetry/tracing.ts';
import { Drafter } from './draft.ts';
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

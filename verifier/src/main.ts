import { checkBatchInvariance } from '@ptp/engine/batch-invariance';
import { engineMetrics } from '@ptp/engine/engine-metrics';
import { modelFacts } from '@ptp/engine/model-info';
import { openTargetEngine } from '@ptp/engine/onnx/engine';
import { loadManifest } from '@ptp/protocol/manifest';
import { serve } from '@ptp/protocol/server';
import { endWhen, runService } from '@ptp/service-kit/lifecycle';
import { serveMetrics, startMetrics } from '@ptp/service-kit/metrics';
import { settings } from '@ptp/service-kit/settings';
import { loadTls } from '@ptp/service-kit/tls-settings';
import { startTracing } from '@ptp/service-kit/tracing';
import { verifierService } from './service.ts';
import { verifierSettings } from './settings.ts';
import { Verifier } from './verifier.ts';

await runService('verifier', async (logger, onStop) => {
  const config = settings(verifierSettings, process.env);
  const tracing = await startTracing('ptp-verifier');
  onStop(() => tracing.stop());
  const manifest = await loadManifest(config.models);
  const engine = await openTargetEngine({
    dir: config.models,
    threads: config.threads,
    prefixCacheBytes: config.prefixCacheMegabytes * 1e6,
  });
  onStop(() => engine.dispose());
  endWhen(engine.died, logger);
  const check = await checkBatchInvariance(engine);
  if (check.invariant) logger.info(check, 'the engine is batch-invariant');
  else logger.error(check, 'the engine is not batch-invariant here: texts may depend on drafts and batches');
  const metrics = await startMetrics('ptp-verifier', manifest.id);
  onStop(() => metrics.stop());
  for (const address of config.metrics) {
    const served = await serveMetrics(metrics, address, verifierSettings.metrics.name);
    onStop(() => served.stop());
  }
  const limits = {
    draft: config.draftLimit,
    prefillChunk: config.prefillChunk,
    batchTokens: config.batchTokens,
    sequences: config.sequences,
    queue: config.queue,
  };
  const verifier = new Verifier(engine, limits, engineMetrics(metrics.meter, engine));
  metrics.meter
    .createObservableGauge('ptp.engine.batch_invariant', {
      description: 'Whether the check at the start found no bit that depends on the batch.',
    })
    .addCallback((result) => result.observe(Number(check.invariant)));
  const server = await serve({
    address: config.address.target,
    setting: verifierSettings.address.name,
    logger,
    tls: await loadTls(config),
    stallMillis: config.stallMillis,
    services: [verifierService(verifier, modelFacts(manifest), check.invariant)],
  });
  onStop(() => server.close(config.drainSeconds * 1000));
});

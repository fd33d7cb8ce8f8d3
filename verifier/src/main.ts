import { loadManifest } from '@ptp/core/engine/manifest.ts';
import { openTargetEngine } from '@ptp/core/engine/onnx-engine.ts';
import { checkBatchInvariance } from '@ptp/core/engine/self-check.ts';
import { settings } from '@ptp/core/env.ts';
import { endWhen, runService } from '@ptp/core/lifecycle.ts';
import { modelFacts } from '@ptp/core/model-facts.ts';
import { serve } from '@ptp/core/rpc/server.ts';
import { loadTls } from '@ptp/core/rpc/tls.ts';
import { engineMetrics } from '@ptp/core/telemetry/engine-metrics.ts';
import { serveMetrics, startMetrics } from '@ptp/core/telemetry/metrics.ts';
import { startTracing } from '@ptp/core/telemetry/tracing.ts';
import { verifierService } from './service.ts';
import { verifierSettings } from './settings.ts';
import { Verifier } from './verify.ts';

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

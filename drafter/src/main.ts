import { loadManifest } from '@ptp/core/engine/manifest.ts';
import { openDraftEngine } from '@ptp/core/engine/onnx-engine.ts';
import { settings } from '@ptp/core/env.ts';
import { endWhen, runService } from '@ptp/core/lifecycle.ts';
import { modelFacts } from '@ptp/core/model-facts.ts';
import { serve } from '@ptp/core/rpc/server.ts';
import { startTracing } from '@ptp/core/telemetry/tracing.ts';
import { Drafter } from './draft.ts';
import { drafterService } from './service.ts';
import { drafterSettings } from './settings.ts';

await runService('drafter', async (logger, onStop) => {
  const config = settings(drafterSettings, process.env);
  const tracing = await startTracing('ptp-drafter');
  onStop(() => tracing.stop());
  const manifest = await loadManifest(config.models);
  const engine = await openDraftEngine({
    dir: config.models,
    threads: config.threads,
    prefixCacheBytes: config.prefixCacheMegabytes * 1e6,
  });
  onStop(() => engine.dispose());
  endWhen(engine.died, logger);
  const drafter = new Drafter(engine, {
    budget: config.budgetLimit,
    block: config.blockLimit,
    prefillChunk: config.prefillChunk,
    batchTokens: config.batchTokens,
    sequences: config.sequences,
    queue: config.queue,
  });
  const server = await serve({
    address: config.address.target,
    setting: drafterSettings.address.name,
    logger,
    services: [drafterService(drafter, modelFacts(manifest))],
  });
  onStop(() => server.close(config.drainSeconds * 1000));
});

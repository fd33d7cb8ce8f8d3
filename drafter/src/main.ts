import { loadManifest } from '@ptp/core/engine/manifest.ts';
import { openDraftEngine } from '@ptp/core/engine/onnx-engine.ts';
import { settings } from '@ptp/core/env.ts';
import { DrafterService } from '@ptp/core/gen/ptp/v1/drafter_pb.ts';
import { endWhen, runService } from '@ptp/core/lifecycle.ts';
import { modelFacts, prefixCacheFacts } from '@ptp/core/model-facts.ts';
import { implement, serve } from '@ptp/core/rpc/server.ts';
import { startTracing } from '@ptp/core/telemetry/tracing.ts';
import { Drafter } from './draft.ts';
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
  const model = modelFacts(manifest);
  const server = await serve({
    address: config.address.target,
    setting: drafterSettings.address.name,
    logger,
    services: [
      implement(DrafterService, {
        getDrafter: () => {
          const { sequences, cacheBytes } = engine.usage();
          const { maxBranchLength } = engine;
          const prefixCache = prefixCacheFacts(engine.prefixCache());
          return { model, openSequences: sequences, cacheBytes: BigInt(cacheBytes), maxBranchLength, prefixCache };
        },
        draft: (requests, { signal }) => drafter.draft(requests, signal),
      }),
    ],
  });
  onStop(() => server.close(config.drainSeconds * 1000));
});

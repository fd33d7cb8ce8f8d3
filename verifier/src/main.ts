import { loadManifest } from '@ptp/core/engine/manifest.ts';
import { openTargetEngine } from '@ptp/core/engine/onnx-engine.ts';
import { settings } from '@ptp/core/env.ts';
import { VerifierService } from '@ptp/core/gen/ptp/v1/verifier_pb.ts';
import { endWhen, runService } from '@ptp/core/lifecycle.ts';
import { modelFacts, prefixCacheFacts } from '@ptp/core/model-facts.ts';
import { implement, serve } from '@ptp/core/rpc/server.ts';
import { startTracing } from '@ptp/core/telemetry/tracing.ts';
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
  const verifier = new Verifier(engine, {
    draft: config.draftLimit,
    prefillChunk: config.prefillChunk,
    batchTokens: config.batchTokens,
    sequences: config.sequences,
    queue: config.queue,
  });
  const model = modelFacts(manifest);
  const server = await serve({
    address: config.address.target,
    setting: verifierSettings.address.name,
    logger,
    services: [
      implement(VerifierService, {
        getTarget: () => {
          const { sequences, cacheBytes } = engine.usage();
          const prefixCache = prefixCacheFacts(engine.prefixCache());
          return { model, openSequences: sequences, cacheBytes: BigInt(cacheBytes), prefixCache };
        },
        verify: (requests, { signal }) => verifier.verify(requests, signal),
      }),
    ],
  });
  onStop(() => server.close(config.drainSeconds * 1000));
});

import { checkBatchInvariance } from '@ptp/engine/batch-invariance';
import { runModelService } from '@ptp/engine/model-service';
import { openTargetEngine } from '@ptp/engine/open-engine';
import { PREFILL_CHUNK, QUEUE_LIMIT } from '@ptp/engine/scheduler';
import { Gauge } from 'prom-client';
import { verifierService } from './service.ts';
import { verifierSettings } from './settings.ts';
import { Verifier } from './verifier.ts';

await runModelService({
  name: 'verifier',
  settings: verifierSettings,
  openEngine: (options) => openTargetEngine(options),
  async implement({ engine, model, observe, registry, logger }, { batchTokens, sequences }) {
    const check = await checkBatchInvariance(engine);
    if (check.invariant) logger.info(check, 'the engine is batch-invariant');
    else logger.error(check, 'the engine is not batch-invariant here: texts may depend on drafts and batches');
    new Gauge({
      name: 'ptp_engine_batch_invariant',
      help: 'Whether the check at the start found no bit that depends on the batch.',
      registers: [registry],
    }).set(Number(check.invariant));
    const limits = {
      draft: 64,
      prefillChunk: PREFILL_CHUNK,
      batchTokens,
      sequences,
      queue: Math.max(QUEUE_LIMIT, sequences),
    };
    return verifierService(new Verifier(engine, limits, observe), model, check.invariant);
  },
});

import { checkBatchInvariance } from '@ptp/engine/batch-invariance';
import { runModelService } from '@ptp/engine/model-service';
import { openTargetEngine } from '@ptp/engine/open-engine';
import { Gauge } from 'prom-client';
import { verifierService } from './service.ts';
import { verifierSettings } from './settings.ts';
import { Verifier } from './verifier.ts';

await runModelService({
  name: 'verifier',
  settings: verifierSettings,
  openEngine: (options) => openTargetEngine(options),
  async implement({ engine, model, observe, registry, logger }, { draftLimit: draft, ...scheduling }) {
    const check = await checkBatchInvariance(engine);
    if (check.invariant) logger.info(check, 'the engine is batch-invariant');
    else logger.error(check, 'the engine is not batch-invariant here: texts may depend on drafts and batches');
    new Gauge({
      name: 'ptp_engine_batch_invariant',
      help: 'Whether the check at the start found no bit that depends on the batch.',
      registers: [registry],
    }).set(Number(check.invariant));
    return verifierService(new Verifier(engine, { draft, ...scheduling }, observe), model, check.invariant);
  },
});

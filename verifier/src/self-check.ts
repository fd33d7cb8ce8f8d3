import { checkBatchInvariance } from '@ptp/engine/batch-invariance';
import type { TargetEngine } from '@ptp/engine/types';
import type { Logger } from '@ptp/service-kit/log';
import { Gauge, type Registry } from 'prom-client';

/** Checks, logs and exports whether the engine is batch-invariant on this machine. */
export async function selfCheck(engine: TargetEngine, registry: Registry, logger: Logger): Promise<boolean> {
  const check = await checkBatchInvariance(engine);
  if (check.invariant) logger.info(check, 'the engine is batch-invariant');
  else logger.error(check, 'the engine is not batch-invariant here: texts may depend on drafts and batches');
  new Gauge({
    name: 'ptp_engine_batch_invariant',
    help: '1 if the self-check at start found the engine batch-invariant, else 0.',
    registers: [registry],
  }).set(Number(check.invariant));
  return check.invariant;
}

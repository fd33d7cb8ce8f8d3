import { checkBatchInvariance } from '@ptp/engine/batch-invariance';
import type { TargetEngine } from '@ptp/engine/types';
import type { Logger } from '@ptp/service-kit/log';
import { Gauge, type Registry } from 'prom-client';

/** Time in milliseconds after which the check starts no further comparison, so that large models become ready. */
const BUDGET_MS = 5000;

/** Checks that the engine is batch-invariant on this machine, logs the result and exports it as a metric. */
export async function selfCheck(engine: TargetEngine, registry: Registry, logger: Logger): Promise<boolean> {
  const check = await checkBatchInvariance(engine, BUDGET_MS);
  if (check.invariant) logger.info(check, 'the engine is batch-invariant');
  else
    logger.error(
      check,
      'the engine is not batch-invariant on this machine: generated text may depend on drafts and batches',
    );
  new Gauge({
    name: 'ptp_engine_batch_invariant',
    help: 'Result of the self-check at startup: 1 if the engine is batch-invariant, otherwise 0.',
    registers: [registry],
  }).set(Number(check.invariant));
  return check.invariant;
}

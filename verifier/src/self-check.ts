import { type BatchInvariance, checkBatchInvariance } from '@ptp/engine/batch-invariance';
import type { TargetEngine } from '@ptp/engine/types';
import type { Logger } from '@ptp/service-kit/log';
import { Gauge, type Registry } from 'prom-client';
import type { KnownVerdict } from './known-verdict.ts';

/** Default of `budgetMs`. Large models would need minutes for all comparisons. */
const BUDGET_MS = 3000;
/** Time in milliseconds between two log records about the progress of the check. */
const PROGRESS_MS = 2000;

/**
 * Checks that the engine is batch-invariant on this machine, logs the result and exports it as a metric.
 *
 * @param known stored result of an earlier check, if there is one; a check runs only without it
 * @param budgetMs time in milliseconds after which the check starts no further comparison
 */
export async function selfCheck(
  engine: TargetEngine,
  registry: Registry,
  logger: Logger,
  known?: KnownVerdict,
  budgetMs = BUDGET_MS,
): Promise<boolean> {
  const earlier = await known?.read();
  const check = earlier ?? (await run(engine, logger, budgetMs));
  if (!earlier) await known?.write(check);
  const result = { ...check, ...(earlier && { earlier: true }) };
  if (check.invariant) logger.info(result, 'the engine is batch-invariant');
  else
    logger.error(
      result,
      'the engine is not batch-invariant on this machine: generated text may depend on drafts and batches',
    );
  new Gauge({
    name: 'ptp_engine_batch_invariant',
    help: 'Result of the self-check at startup: 1 if the engine is batch-invariant, otherwise 0.',
    registers: [registry],
  }).set(Number(check.invariant));
  return check.invariant;
}

function run(engine: TargetEngine, logger: Logger, budgetMs: number): Promise<BatchInvariance> {
  let reported = performance.now();
  return checkBatchInvariance(engine, budgetMs, (runs) => {
    if (performance.now() - reported < PROGRESS_MS) return;
    reported = performance.now();
    logger.info({ runs }, 'checking whether the engine is batch-invariant');
  });
}

/**
 * Serves an engine to a service in another process, as `ptp-engine` does: `node bench/engine-worker.ts
 * target|drafter|fake ADDRESS MODEL`. A fake target has the sizes of the model.
 */
import { openDraftEngine, openTargetEngine } from '@ptp/engine/open-engine';
import { engineService } from '@ptp/engine/testing/engine-service';
import { serve } from '@ptp/protocol/server';
import { runService } from '@ptp/service-kit/lifecycle';
import { fakeTargetFor } from './fake-model.ts';

const [kind, address = '', dir = ''] = process.argv.slice(2);

function openEngine() {
  if (kind === 'fake') return fakeTargetFor(dir);
  return kind === 'target' ? openTargetEngine({ dir }) : openDraftEngine({ dir });
}

await runService(`engine of the ${kind}`, async (logger, onStop) => {
  const engine = await openEngine();
  onStop(() => engine.dispose());
  const server = await serve({ address, logger, services: [engineService(engine)] });
  onStop(() => server.close(0));
});
